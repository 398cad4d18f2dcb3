// Runs a flicker study. All that it keeps is one record, in this browser; it sends nothing.
"use strict";

(() => {
  const DESIGN = STUDY.design;
  const TIMING = DESIGN.timing;
  const CARD_MM = 85.6; // ISO/IEC 7810 ID-1
  const GAP_PX = 48; // between the pictures, in device pixels
  const MARGIN_PX = 8; // above, below and beside them
  const BREAK_EVERY = 60; // trials
  const SOONEST_MS = 150; // nobody answers sooner: it is the key of the trial before
  const DOWN_AFTER = 3; // right answers, so that a staircase ends where 79 % are right
  const WIDE_STEPS = 2; // until so many reversals a staircase takes two steps at once
  const STAIRCASE_SHARE = 0.75; // of its longest length, that a staircase takes by and large
  const MOST_PICTURES = 32; // kept decoded
  const MAIN_TRIALS = DESIGN.images.length * DESIGN.models.length * (DESIGN.method === "constant"
    ? DESIGN.lmbdas.length * DESIGN.repeats
    : DESIGN.longest_staircase * STAIRCASE_SHARE); // about so many, of staircases

  const byId = (id) => document.getElementById(id);

  // ---- Random numbers, the same for the same words on every machine.

  function randomOf(...words) {
    let seed = 2166136261; // FNV-1a
    for (const character of words.join("/")) {
      seed = Math.imul(seed ^ character.codePointAt(0), 16777619);
    }
    return () => { // mulberry32
      seed = (seed + 0x6d2b79f5) | 0;
      let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    };
  }

  const pick = (list, random) => list[Math.floor(random() * list.length)];

  function shuffle(list, random) {
    for (let i = list.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [list[i], list[j]] = [list[j], list[i]];
    }
    return list;
  }

  // ---- What is shown: a trial follows from the design, the code and the answers before it, so
  // that a page that was closed goes on where it was.

  const names = (list) => list.map((each) => each.name);

  function allCells() {
    return names(DESIGN.images).flatMap((image) =>
      names(DESIGN.models).map((model) => ({ image, model })));
  }

  function makeTrial(kind, cell, lmbda, random) {
    return { kind, image: cell.image, model: cell.model, lmbda,
             side: random() < 0.5 ? "left" : "right" };
  }

  function nextTrial(code, answered) {
    const number = answered.length;
    const random = randomOf(DESIGN.seed, code, "trial", number);
    if (number < DESIGN.practice) {
      return makeTrial("practice", pick(allCells(), random), DESIGN.trap_lmbda, random);
    }
    const done = answered.slice(DESIGN.practice);
    const traps = done.filter((trial) => trial.kind === "trap").length;
    const main = done.filter((trial) => trial.kind === "main");
    const next = DESIGN.method === "constant"
      ? nextConstant(code, main) : nextOnStairs(main, random);
    // The traps are spread over the study, each at a random place of its own stretch.
    const place = (traps + randomOf(DESIGN.seed, code, "trap", traps)()) / DESIGN.traps;
    if (traps < DESIGN.traps && (!next || main.length >= place * MAIN_TRIALS)) {
      return makeTrial("trap", pick(allCells(), random), DESIGN.trap_lmbda, random);
    }
    return next && makeTrial("main", next, next.lmbda, random);
  }

  function nextConstant(code, main) {
    const cells = [];
    for (let repeat = 0; repeat < DESIGN.repeats; repeat++) { // each repeat in an order of its own
      const round = allCells().flatMap((cell) => DESIGN.lmbdas.map((lmbda) => ({ ...cell, lmbda })));
      cells.push(...shuffle(round, randomOf(DESIGN.seed, code, "order", repeat)));
    }
    return cells[main.length] ?? null;
  }

  function nextOnStairs(main, random) {
    const stairs = new Map(allCells().map((cell) => [
      JSON.stringify([cell.image, cell.model]),
      { ...cell, level: DESIGN.lmbdas.length - 1, run: 0, direction: 0, turns: 0, trials: 0 },
    ]));
    for (const trial of main) {
      climb(stairs.get(JSON.stringify([trial.image, trial.model])), trial.answer === trial.side);
    }
    const open = [...stairs.values()].filter(
      (stair) => stair.turns < DESIGN.reversals && stair.trials < DESIGN.longest_staircase);
    if (!open.length) return null;
    const stair = pick(open, random);
    return { ...stair, lmbda: DESIGN.lmbdas[stair.level] };
  }

  function climb(stair, right) {
    stair.trials += 1;
    stair.run = right ? stair.run + 1 : 0;
    if (right && stair.run < DOWN_AFTER) return;
    const direction = right ? -1 : 1;
    if (stair.direction && direction !== stair.direction) stair.turns += 1;
    const steps = stair.turns < WIDE_STEPS ? 2 : 1;
    const level = stair.level + direction * steps;
    stair.level = Math.min(Math.max(level, 0), DESIGN.lmbdas.length - 1);
    stair.direction = direction;
    stair.run = 0;
  }

  function share(answered) { // of the study that is done
    const main = answered.filter((trial) => trial.kind === "main").length;
    return Math.min(1, main / MAIN_TRIALS);
  }

  // ---- The record: what is saved in the browser, and at the end as a file.

  let record = null;

  const keyOf = (code) => `hvsjnd_jax study ${STUDY.id} ${code}`;

  function makeRecord(code) {
    return { format: "hvsjnd_jax study result", version: 1, study: STUDY.id, design: DESIGN,
             participant: code, started: new Date().toISOString(), finished: false,
             screen: null, plates: [], trials: [] };
  }

  function keep() {
    try {
      localStorage.setItem(keyOf(record.participant), JSON.stringify(record));
    } catch {
      // A private window may keep nothing; the study still runs, and saves its file at the end.
    }
  }

  function recall(code) {
    try {
      const kept = JSON.parse(localStorage.getItem(keyOf(code)));
      return kept && kept.study === STUDY.id ? kept : null;
    } catch {
      return null;
    }
  }

  function saveFile() {
    const link = document.createElement("a");
    const text = JSON.stringify(record);
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = `${record.participant}_${STUDY.id}.json`;
    byId("file").textContent = link.download;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // ---- Screens.

  function show(id) {
    document.body.classList.toggle("trial", id === "stage");
    for (const part of document.querySelectorAll("section, #stage")) part.hidden = part.id !== id;
    window.scrollTo(0, 0);
    const first = byId(id).querySelector("input:not([type=range]), button.main");
    if (first && !first.disabled) first.focus({ preventScroll: true });
  }

  function proceed() {
    if (!record.screen) startCard();
    else if (record.plates.length < DESIGN.plates) startPlate();
    else if (!nextTrial(record.participant, record.trials)) finish();
    else getReady();
  }

  function welcome() {
    document.title = DESIGN.title;
    byId("title").textContent = DESIGN.title;
    const trials = DESIGN.practice + DESIGN.traps + MAIN_TRIALS;
    const minutes = Math.max(1, Math.round(trials * (3 + TIMING.pause_s) / 60)) + 2;
    byId("length").textContent = `It takes about ${minutes} minutes, with breaks.`;
    byId("code").value = "";
    show("welcome");
  }

  byId("enter").addEventListener("submit", (event) => {
    event.preventDefault();
    const code = byId("code").value;
    const kept = recall(code);
    record = kept ?? makeRecord(code);
    if (!kept) return proceed();
    byId("known-text").textContent = kept.finished
      ? `The answers of ${code} are complete, and are kept in this browser.`
      : `This browser keeps ${kept.trials.length} answers of ${code}.`;
    show("known");
  });

  byId("resume").addEventListener("click", () => proceed());
  byId("erase").addEventListener("click", () => {
    record = makeRecord(record.participant);
    keep();
    proceed();
  });

  // The screen: its size by a card, the distance, its blacks, whites and gamma.

  const screenOf = {};

  function startCard() {
    show("card");
    fitCard();
    byId("card-width").focus();
  }

  function fitCard() {
    byId("card-frame").style.width = `${byId("card-width").value}px`;
  }

  byId("card-width").addEventListener("input", fitCard);
  byId("card-done").addEventListener("click", () => {
    const wide = byId("card-width").value * devicePixelRatio;
    Object.assign(screenOf, { px_per_mm: wide / CARD_MM, device_pixel_ratio: devicePixelRatio,
      width_px: Math.round(innerWidth * devicePixelRatio),
      height_px: Math.round(innerHeight * devicePixelRatio) });
    show("distance");
    tellDegree();
  });

  function tellDegree() {
    const distance = byId("distance-cm").valueAsNumber;
    const pixels = 20 * distance * Math.tan(Math.PI / 360) * screenOf.px_per_mm;
    byId("degree").textContent = distance > 0
      ? `One degree of your view then covers ${pixels.toFixed(0)} pixels.` : "";
  }

  byId("distance-cm").addEventListener("input", tellDegree);
  byId("distance-form").addEventListener("submit", (event) => {
    event.preventDefault();
    screenOf.distance_cm = byId("distance-cm").valueAsNumber;
    startLight();
  });

  async function startLight() {
    drawSquares(byId("dark"), 0, [4, 8, 12, 16]);
    drawSquares(byId("bright"), 255, [251, 247, 243, 239]);
    offer(byId("dark-choices"), ["0", "1", "2", "3", "4"], (seen) => { tell("dark_seen", seen); });
    offer(byId("bright-choices"), ["0", "1", "2", "3", "4"], (seen) => { tell("light_seen", seen); });
    show("light");
    drawGamma();
    screenOf.refresh_hz = await measureRefresh();
    tell();
  }

  function tell(name, seen) {
    if (name) screenOf[name] = Number(seen);
    byId("light-done").disabled =
      !("dark_seen" in screenOf && "light_seen" in screenOf && screenOf.refresh_hz);
  }

  function offer(place, words, choose) {
    place.replaceChildren(...words.map((word) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = word;
      button.addEventListener("click", () => {
        for (const other of place.children) other.setAttribute("aria-pressed", other === button);
        choose(word);
      });
      return button;
    }));
  }

  const gray = (level) => `rgb(${level} ${level} ${level})`;

  function drawSquares(canvas, ground, levels) {
    const context = canvas.getContext("2d");
    context.fillStyle = gray(ground);
    context.fillRect(0, 0, canvas.width, canvas.height);
    levels.forEach((level, i) => {
      context.fillStyle = gray(level);
      context.fillRect(20 + 76 * i, 22, 52, 52);
    });
  }

  function drawGamma() {
    const canvas = byId("gamma");
    const [width, height] = [480, 120].map((side) => Math.round(side * devicePixelRatio));
    Object.assign(canvas, { width, height });
    canvas.style.width = `${width / devicePixelRatio}px`;
    canvas.style.height = `${height / devicePixelRatio}px`;
    const context = canvas.getContext("2d");
    for (let y = 0; y < height; y++) { // lines of one device pixel: half the light of white
      context.fillStyle = gray(y % 2 ? 255 : 0);
      context.fillRect(0, y, width, 1);
    }
    context.fillStyle = gray(byId("gamma-level").value);
    context.fillRect(Math.round(width / 3), 0, Math.round(width / 3), height);
  }

  function measureRefresh() {
    return new Promise((resolve) => {
      const times = [];
      const step = (now) => {
        times.push(now);
        if (times.length < 2 || now - times[0] < 500) return requestAnimationFrame(step);
        const gaps = times.slice(1).map((time, i) => time - times[i]).sort((a, b) => a - b);
        resolve(1000 / Math.max(gaps[Math.floor(gaps.length / 2)], 0.1));
      };
      requestAnimationFrame(step);
    });
  }

  byId("gamma-level").addEventListener("input", drawGamma);
  byId("light-done").addEventListener("click", () => {
    const level = Number(byId("gamma-level").value);
    record.screen = { ...screenOf, gamma: Math.log(0.5) / Math.log(level / 255) };
    keep();
    proceed();
  });

  // Colour-vision plates: a digit of dots whose colour differs from the ground's only by what
  // one kind of cone sees, with the dots' brightness varied at random.

  const DIGITS = ["2", "3", "4", "5", "6", "7", "8", "9"];
  const PLATE_PX = 360;
  // Linear RGB of a change that only the M, or only the L cones see (Hunt, Pointer and Estevez).
  const CONES = { m: [-4.6420, 2.2932, -0.1932], l: [5.4722, -1.1252, 0.0298] };
  const GROUND = [0.33, 0.29, 0.2];
  const AMOUNT = { m: 0.05, l: 0.042 };

  function plateOf(code, number) {
    const random = randomOf(DESIGN.seed, code, "plate", number);
    // The first plate differs in brightness, too: whoever misreads it did not look.
    const kind = number === 0 ? "all" : number % 2 ? "m" : "l";
    return { digit: pick(DIGITS, random), kind, sign: random() < 0.5 ? 1 : -1, random };
  }

  function drawPlate({ digit, kind, sign, random }) {
    const canvas = byId("plate");
    const side = Math.round(PLATE_PX * devicePixelRatio);
    Object.assign(canvas, { width: side, height: side });
    canvas.style.width = canvas.style.height = `${side / devicePixelRatio}px`;
    const inDigit = maskOf(digit, PLATE_PX);
    const context = canvas.getContext("2d");
    const scale = side / PLATE_PX;
    const dots = [];
    for (let tries = 0; tries < 9000; tries++) {
      const radius = 4 + 5 * random() * (1 - tries / 9000);
      const [x, y] = [random() * PLATE_PX, random() * PLATE_PX];
      const centre = PLATE_PX / 2;
      if (Math.hypot(x - centre, y - centre) > centre - radius - 2) continue;
      if (dots.some((dot) => Math.hypot(x - dot.x, y - dot.y) < radius + dot.radius + 1)) continue;
      dots.push({ x, y, radius });
      context.fillStyle = colorOf(inDigit(x, y), kind, sign, 0.75 + 0.5 * random());
      context.beginPath();
      context.arc(x * scale, y * scale, radius * scale, 0, 2 * Math.PI);
      context.fill();
    }
  }

  function maskOf(digit, side) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    context.font = `bold ${0.78 * side}px sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(digit, side / 2, 0.53 * side);
    const { data } = context.getImageData(0, 0, side, side);
    return (x, y) => data[4 * (Math.floor(y) * side + Math.floor(x)) + 3] > 127;
  }

  function colorOf(inside, kind, sign, brightness) {
    const toward = inside ? sign : -sign;
    const linear = kind === "all"
      ? (inside ? [0.75, 0.55, 0.1] : [0.03, 0.07, 0.2])
      : GROUND.map((value, i) => value + toward * AMOUNT[kind] * CONES[kind][i]);
    const encoded = linear.map((value) => {
      const light = Math.min(Math.max(value * brightness, 0), 1);
      return 255 * (light <= 0.0031308 ? 12.92 * light : 1.055 * light ** (1 / 2.4) - 0.055);
    });
    return `rgb(${encoded.map(Math.round).join(" ")})`;
  }

  function startPlate() {
    const number = record.plates.length;
    const plate = plateOf(record.participant, number);
    byId("plate-step").textContent = `Colours, ${number + 1} of ${DESIGN.plates}`;
    offer(byId("plate-choices"), [...DIGITS, "none"], (word) => answerPlate(plate.digit, word));
    show("plates");
    drawPlate(plate);
  }

  function answerPlate(shown, answer) {
    record.plates.push({ shown, answer });
    keep();
    proceed();
  }

  // ---- Trials.

  const cache = new Map(); // pictures by address, the oldest first

  function loadPicture(address) {
    const found = cache.get(address) ?? new Promise((resolve, reject) => {
      const picture = new Image();
      const fail = () => reject(new Error(address));
      picture.onload = () => picture.decode().then(() => resolve(picture), fail);
      picture.onerror = fail;
      picture.src = address;
    });
    cache.delete(address);
    cache.set(address, found);
    if (cache.size > MOST_PICTURES) cache.delete(cache.keys().next().value);
    found.catch(() => cache.delete(address));
    return found;
  }

  function loadPair(trial) {
    const folder = `pictures/${names(DESIGN.images).indexOf(trial.image)}`;
    const model = names(DESIGN.models).indexOf(trial.model);
    const level = trial.kind === "main" ? DESIGN.lmbdas.indexOf(trial.lmbda) : DESIGN.lmbdas.length;
    return Promise.all([`${folder}/original.png`, `${folder}/${model}_${level}.png`].map(loadPicture));
  }

  function loadAhead(trial) { // whichever way it is answered
    for (const answer of ["left", "right"]) {
      const next = nextTrial(record.participant, [...record.trials, { ...trial, answer }]);
      if (next) loadPair(next).catch(() => {}); // showing it will tell
    }
  }

  function getReady() {
    const done = record.trials.length;
    const practised = done - DESIGN.practice;
    if (practised < 0) {
      byId("ready-title").textContent = "First some practice";
      byId("ready-text").textContent =
        `In these ${DESIGN.practice} pairs the flicker is strong, and you are told if you are right.`;
    } else if (practised === 0) {
      byId("ready-title").textContent = "Now the study";
      byId("ready-text").textContent =
        "From here on nobody tells you. Often you will see no flicker: then guess. Look around in "
        + `both pictures; after ${TIMING.longest_s} seconds they vanish, and you answer.`;
    } else {
      byId("ready-title").textContent = "Take a break";
      byId("ready-text").textContent =
        `${Math.round(100 * share(record.trials))} % are done. Rest your eyes, look out of the window.`;
    }
    byId("fullscreen").hidden = !document.fullscreenEnabled || document.fullscreenElement !== null;
    show("ready");
  }

  byId("fullscreen").addEventListener("click", async () => {
    await document.documentElement.requestFullscreen().catch(() => {});
    byId("fullscreen").hidden = true;
    byId("start").focus();
  });
  byId("start").addEventListener("click", () => {
    show("stage");
    runTrial();
  });

  let current = null; // the trial that is on the screen

  async function runTrial() {
    const trial = nextTrial(record.participant, record.trials);
    if (!trial) return finish();
    byId("progress").firstElementChild.style.width = `${100 * share(record.trials)}%`;
    byId("word").textContent = "";
    blank(true);
    let pictures;
    try {
      [pictures] = await Promise.all([loadPair(trial), wait(TIMING.pause_s)]);
    } catch (error) {
      return complain(`The picture ${error.message} cannot be loaded. Is the study's folder complete?`);
    }
    current = { trial, pictures };
    begin();
    loadAhead(trial);
  }

  const wait = (seconds) => new Promise((resolve) => { setTimeout(resolve, 1000 * seconds); });

  function blank(cross) {
    current = null;
    byId("left").hidden = byId("right").hidden = true;
    byId("cross").hidden = !cross;
  }

  // Gives each picture's pixel one pixel of the device; false if the window is too small.
  function place({ pictures: [original] }) {
    const ratio = devicePixelRatio;
    const [width, height] = [original.naturalWidth, original.naturalHeight];
    const wide = 2 * width + GAP_PX;
    const room = [innerWidth * ratio - 2 * MARGIN_PX, innerHeight * ratio - 2 * MARGIN_PX];
    const fits = wide <= room[0] && height <= room[1];
    byId("small").hidden = fits;
    byId("small").textContent =
      `The pictures need a window of ${Math.ceil((wide + 2 * MARGIN_PX) / ratio)} by `
      + `${Math.ceil((height + 2 * MARGIN_PX) / ratio)}; this one has ${innerWidth} by ${innerHeight}. `
      + "Enlarge it, or go to full screen.";
    const left = Math.max(0, Math.floor((innerWidth * ratio - wide) / 2));
    const top = Math.max(0, Math.floor((innerHeight * ratio - height) / 2));
    for (const [side, x] of [["left", left], ["right", left + width + GAP_PX]]) {
      const canvas = byId(side);
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      Object.assign(canvas.style, { left: `${x / ratio}px`, top: `${top / ratio}px`,
        width: `${width / ratio}px`, height: `${height / ratio}px` });
      draw(canvas, original);
      canvas.hidden = !fits;
    }
    byId("cross").hidden = true;
    return fits;
  }

  function draw(canvas, picture) {
    canvas.getContext("2d", { alpha: false }).drawImage(picture, 0, 0);
  }

  function begin() {
    current.since = current.phase = null;
    if (place(current)) current.frame = requestAnimationFrame(flicker);
  }

  function flicker(now) {
    if (!current || document.hidden) return;
    current.since ??= now;
    const elapsed = (now - current.since) / 1000;
    if (elapsed > TIMING.longest_s) {
      byId("left").hidden = byId("right").hidden = true;
      byId("word").textContent = "Which one flickered?";
      return;
    }
    const phase = Math.floor(2 * TIMING.flicker_hz * elapsed) % 2;
    if (phase !== current.phase) { // both are drawn anew, so that drawing itself tells nothing
      current.phase = phase;
      for (const side of ["left", "right"]) {
        const shown = current.pictures[side === current.trial.side ? phase : 0];
        draw(byId(side), shown);
      }
    }
    current.frame = requestAnimationFrame(flicker);
  }

  function answer(side) {
    if (!current || current.since === null) return;
    const reaction = performance.now() - current.since;
    if (reaction < SOONEST_MS) return;
    const { trial } = current;
    record.trials.push({ ...trial, answer: side, reaction_ms: Math.round(reaction) });
    keep();
    blank(false);
    const done = record.trials.length - DESIGN.practice;
    if (trial.kind === "practice") {
      byId("word").textContent = side === trial.side ? "Right." : `No, it was the ${trial.side} one.`;
      return wait(2 * TIMING.pause_s).then(done === 0 ? getReady : runTrial);
    }
    if (done % BREAK_EVERY === 0 && nextTrial(record.participant, record.trials)) getReady();
    else runTrial();
  }

  // A trial that was disturbed begins anew.
  function again() {
    if (!current) return;
    cancelAnimationFrame(current.frame);
    byId("word").textContent = "";
    begin();
  }

  window.addEventListener("resize", again);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) again(); });
  document.addEventListener("keydown", (event) => {
    if (!current || event.repeat) return;
    const side = { ArrowLeft: "left", ArrowRight: "right" }[event.key];
    if (side) {
      event.preventDefault();
      answer(side);
    }
  });
  for (const side of ["left", "right"]) {
    byId(side).addEventListener("pointerdown", () => answer(side));
  }
  // After the pictures have vanished, the halves of the screen stand for them.
  byId("stage").addEventListener("pointerdown", (event) => {
    if (current && byId("left").hidden) answer(event.clientX < innerWidth / 2 ? "left" : "right");
  });

  function complain(text) {
    blank(false);
    byId("trouble-text").textContent = text;
    show("trouble");
  }

  byId("again").addEventListener("click", () => proceed());

  // ---- The end.

  function finish() {
    record.finished = true;
    keep();
    if (document.fullscreenElement) document.exitFullscreen().catch(() => {});
    show("end");
    saveFile();
  }

  byId("save").addEventListener("click", saveFile);
  byId("next").addEventListener("click", () => location.reload());

  welcome();
})();
