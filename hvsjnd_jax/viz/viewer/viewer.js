"use strict";

// The data, written by page.py:
//   title, facts: text above the gallery
//   setting: {name, kind, values}: what the slider ("slider") or the choice ("choice") sets
//   original: the suffix of the original's file
//   copies: [{name, files}], a file's suffix for each setting
//   overlays: [{name, files}], the same for each copy, or null where the copy has no such map
//   scores: [{name, unit, digits}]
//   images: [{name, path, url, width, height, scores}], scores[setting][copy][score], where a copy
//     that there is not is null
// A picture's address is its image's url followed by a suffix. Names and paths are anybody's text:
// they reach the page as text content only, and url is percent-encoded.

(() => {
  const BATCH = 120; // cards that are made at a time, as the gallery is scrolled
  const HALF_PERIOD_MS = 250; // 2 Hz: original and copy twice a second each
  const HOLD_MS = 250; // a longer press looks, a shorter one switches
  const DRAG_PX = 4; // a press that moves farther moves the image
  const WHEEL_STEP = 60;
  const MOST_ZOOM = 8;

  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const { images, copies, overlays, setting } = data;

  const state = {
    sort: -1, // a score's index, or -1 for the name
    descending: false,
    at: 0, // the setting's index
    a: -1, // what A and B are: a copy's index, or -1 for the original
    b: 0,
    order: [], // indices of the images that the gallery shows
    image: null, // index of the one in the viewer
    blinked: false, // whether B is shown
    swiping: false,
    split: 0.5, // where the swipe divides the stage
    overlay: -1,
    zoom: 1,
    x: 0, // the image's point at the centre of the stage, in its pixels
    y: 0,
  };

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const collator = new Intl.Collator(undefined, { numeric: true });

  function make(tag, text, name) {
    const element = document.createElement(tag);
    element.textContent = text;
    if (name) element.className = name;
    return element;
  }

  function fill(select, names, first = 0) {
    names.forEach((name, index) => {
      const option = make("option", name);
      option.value = index + first;
      select.append(option);
    });
  }

  function listen(id, event, handle) {
    $(id).addEventListener(event, handle);
  }

  // A click leaves the focus on the image, so that Space goes on blinking.
  function press(id, act) {
    listen(id, "click", (event) => {
      act();
      if (event.detail) $("stage").focus();
    });
  }

  // Values

  function scoreOf(image, copy, score) {
    const scores = image.scores[state.at][copy];
    return scores ? scores[score] : null;
  }

  function format(score, value) {
    if (value === null) return "–";
    const { digits, unit } = data.scores[score];
    const number = digits === null ? String(Number(value.toPrecision(6))) : value.toFixed(digits);
    return (number + " " + unit).replace("-", "−").trim();
  }

  // The gallery

  let made = 0;

  function sortImages() {
    const wanted = $("find").value.toLocaleLowerCase();
    const copy = Math.max(state.b, 0);
    const sign = state.descending ? -1 : 1;
    const found = [...images.keys()].filter(
      (i) => images[i].path.toLocaleLowerCase().includes(wanted) ||
        images[i].name.toLocaleLowerCase().includes(wanted));
    state.order = found.sort((i, j) => {
      if (state.sort >= 0) {
        const [one, other] = [i, j].map((k) => scoreOf(images[k], copy, state.sort));
        if (one === null || other === null) return (one === null) - (other === null);
        if (one !== other) return sign * (one - other);
        return collator.compare(images[i].name, images[j].name);
      }
      return sign * collator.compare(images[i].name, images[j].name);
    });
  }

  function makeCard(index) {
    const image = images[index];
    const score = Math.max(state.sort, 0);
    const link = document.createElement("a");
    link.href = "#" + (index + 1);
    link.title = image.path;
    const picture = document.createElement("img");
    picture.loading = "lazy";
    picture.decoding = "async";
    picture.alt = "";
    picture.width = image.width;
    picture.height = image.height;
    picture.src = image.url + data.thumbnail;
    const name = make("span", image.name, "name");
    name.dir = "auto";
    const label = data.scores[score].name;
    const value = format(score, scoreOf(image, Math.max(state.b, 0), score));
    link.append(picture, name, make("span", label + " " + value, "score"));
    const card = document.createElement("li");
    card.append(link);
    return card;
  }

  // Cards are made as the gallery's end comes near.
  const end = new IntersectionObserver((entries) => {
    if (entries.at(-1).isIntersecting) makeMore();
  }, { rootMargin: "800px" });

  function makeMore() {
    $("cards").append(...state.order.slice(made, made + BATCH).map(makeCard));
    made = Math.min(made + BATCH, state.order.length);
    // An observer tells of changes alone, and the end may be as near as before.
    end.unobserve($("count"));
    if (made < state.order.length) end.observe($("count"));
  }

  function drawGallery() {
    sortImages();
    $("cards").replaceChildren();
    made = 0;
    makeMore();
    $("order").textContent = state.descending ? "↓ descending" : "↑ ascending";
    $("sort").value = state.sort;
    $("at").value = state.at;
    $("of").value = Math.max(state.b, 0);
    const [shown, all] = [state.order.length, images.length];
    const of = shown === all ? "" : " of " + all;
    $("count").textContent = shown + of + (all === 1 ? " image" : " images");
  }

  // The viewer

  let layers = new Map(); // the picture elements of the image in the viewer, by address
  let timer = null;

  function layer(suffix) {
    const url = images[state.image].url + suffix;
    let picture = layers.get(url);
    if (!picture) {
      picture = document.createElement("img");
      picture.alt = "";
      picture.draggable = false;
      picture.decoding = "sync"; // a blink must not wait for the decoder
      picture.addEventListener("load", show);
      picture.addEventListener("error", show);
      picture.src = url;
      layers.set(url, picture);
      $("plane").append(picture);
    }
    return picture;
  }

  const sideName = (side) => (side < 0 ? "original" : copies[side].name);

  function describe(side) {
    if (side < 0) return sideName(side);
    const value = setting.values[state.at];
    const words = setting.kind === "choice" // shared signs, but lmbda 10
      ? [value, setting.name.toLowerCase()] : [setting.name, value];
    return sideName(side) + ", " + words.join(" ");
  }

  function hasCopy(side) {
    return side < 0 || images[state.image].scores[state.at][side] !== null;
  }

  function sideLayer(side) {
    return hasCopy(side) ? layer(side < 0 ? data.original : copies[side].files[state.at]) : null;
  }

  // The map of the copy on this side; of the other one where this is the original.
  function mapLayer(side, other) {
    if (state.overlay < 0) return null;
    const copy = side >= 0 ? side : Math.max(other, 0);
    const files = overlays[state.overlay].files[copy];
    return files && hasCopy(copy) ? layer(files[state.at]) : null;
  }

  // Shows the pictures that the state asks for, as soon as they are loaded; until then, the former.
  function show() {
    if (state.image === null) return;
    const sides = [state.a, state.b];
    const [a, b] = sides.map(sideLayer);
    const maps = [mapLayer(state.a, state.b), mapLayer(state.b, state.a)];
    const parted = state.swiping && maps[0] !== maps[1];
    const shownMaps = parted ? maps : [maps[state.blinked && !state.swiping ? 1 : 0]];
    const under = state.swiping || !state.blinked ? a : b;
    const over = state.swiping ? b : null;
    if ([under, over, ...shownMaps].some((picture) => picture && !picture.complete)) return;
    for (const picture of layers.values()) picture.className = "";
    if (under) under.className = "under";
    if (over && over !== under) over.className = "over";
    shownMaps.forEach((map, index) => {
      if (!map) return;
      map.className = !parted ? "map" : index ? "map right" : "map left";
      map.style.opacity = $("opacity").value / 100;
    });
    const shown = state.blinked ? state.b : state.a;
    $("left").textContent = describe(state.swiping ? state.a : shown);
    $("right").textContent = state.swiping ? describe(state.b) : "";
    $("blink").classList.toggle("down", state.blinked && !state.swiping);
    $("divider").hidden = !state.swiping;
    const lacking = (state.swiping ? sides : [shown]).filter((side) => !hasCopy(side)).map(sideName);
    if ([under, over].some((picture) => picture && !picture.naturalWidth)) lacking.push("picture");
    if (state.overlay >= 0 && shownMaps.some((map) => !map || !map.naturalWidth)) {
      lacking.push(overlays[state.overlay].name);
    }
    $("failed").hidden = !lacking.length;
    $("failed").textContent = "not there: " + lacking.join(", ");
    $("stage").setAttribute("aria-label", images[state.image].name + ": " + $("left").textContent);
    place();
  }

  // Places the image so that each of its pixels covers zoom x zoom pixels of the screen exactly.
  function place() {
    if (state.image === null) return;
    const { width, height } = images[state.image];
    const ratio = window.devicePixelRatio;
    const scale = state.zoom / ratio;
    const box = $("stage").getBoundingClientRect();
    const along = (centre, size, room, origin) => {
      const rest = room - size * scale;
      const start = rest >= 0 ? rest / 2 : clamp(room / 2 - centre * scale, rest, 0);
      return Math.round((start + origin) * ratio) / ratio - origin;
    };
    const left = along(state.x, width, box.width, box.left);
    const top = along(state.y, height, box.height, box.top);
    const inside = (room, size) => Math.min(room / scale, size) / 2;
    state.x = clamp(state.x, inside(box.width, width), width - inside(box.width, width));
    state.y = clamp(state.y, inside(box.height, height), height - inside(box.height, height));
    const style = $("plane").style;
    style.left = left + "px";
    style.top = top + "px";
    style.width = width * scale + "px";
    style.height = height * scale + "px";
    const split = Math.round(state.split * box.width * ratio) / ratio;
    $("divider").style.left = split + "px";
    $("divider").setAttribute("aria-valuenow", Math.round(state.split * 100));
    const cut = clamp(split - left, 0, width * scale);
    const right = "inset(0 0 0 " + cut + "px)";
    const clips = {
      over: right, "map right": right, "map left": "inset(0 " + (width * scale - cut) + "px 0 0)",
    };
    for (const picture of layers.values()) picture.style.clipPath = clips[picture.className] ?? "";
    $("zoom").textContent = state.zoom + "×";
    $("out").disabled = state.zoom === 1;
    $("in").disabled = state.zoom === MOST_ZOOM;
  }

  function drawScores() {
    const image = images[state.image];
    const head = document.createElement("tr");
    const sides = [state.a, state.b].filter((side) => side >= 0);
    head.append(make("th", image.width + " × " + image.height));
    head.append(...data.scores.map((score) => make("th", score.name)));
    const rows = [...new Set(sides)].map((side) => {
      const row = document.createElement("tr");
      row.append(make("th", describe(side)));
      row.append(...data.scores.map((_, i) => make("td", format(i, scoreOf(image, side, i)))));
      return row;
    });
    $("scores").replaceChildren(head, ...rows);
  }

  // Brings the controls in line with the state.
  function drawViewer() {
    const image = images[state.image];
    $("name").textContent = image.name;
    $("name").title = image.path;
    const rank = state.order.indexOf(state.image);
    $("place").textContent = rank + 1 + " / " + state.order.length;
    $("previous").disabled = rank <= 0;
    $("next").disabled = rank === state.order.length - 1;
    $("a").value = state.a;
    $("b").value = state.b;
    $("slide").value = state.at;
    $("slid").textContent = setting.values[state.at];
    $("choose").value = state.at;
    $("overlay").value = state.overlay;
    $("strength").hidden = state.overlay < 0;
    $("flicker").setAttribute("aria-pressed", timer !== null);
    $("swipe").setAttribute("aria-pressed", state.swiping);
    drawScores();
    show();
    // What may be asked for next is loaded ahead.
    for (const side of [state.a, state.b]) {
      if (side >= 0 && hasCopy(side)) copies[side].files.forEach(layer);
    }
  }

  function stopFlicker() {
    clearInterval(timer);
    timer = null;
  }

  function blink(shown = !state.blinked) {
    state.blinked = shown;
    state.swiping = false;
    $("swipe").setAttribute("aria-pressed", false);
    show();
  }

  function toggleFlicker() {
    if (timer !== null) {
      stopFlicker();
    } else {
      blink();
      timer = setInterval(blink, HALF_PERIOD_MS);
    }
    drawViewer();
  }

  function toggleSwipe() {
    stopFlicker();
    state.swiping = !state.swiping;
    drawViewer();
  }

  function setAt(at) {
    state.at = clamp(at, 0, setting.values.length - 1);
    drawViewer();
  }

  function setOverlay(overlay) {
    state.overlay = overlay;
    drawViewer();
  }

  // Zooms around a point of the stage, by default its centre.
  function zoomTo(zoom, clientX, clientY) {
    const box = $("stage").getBoundingClientRect();
    const dx = clientX === undefined ? 0 : clientX - box.left - box.width / 2;
    const dy = clientY === undefined ? 0 : clientY - box.top - box.height / 2;
    const [former, ratio] = [state.zoom, window.devicePixelRatio];
    state.zoom = clamp(zoom, 1, MOST_ZOOM);
    state.x += dx * ratio * (1 / former - 1 / state.zoom);
    state.y += dy * ratio * (1 / former - 1 / state.zoom);
    place();
  }

  function step(by) {
    const next = state.order[state.order.indexOf(state.image) + by];
    if (next !== undefined) location.replace("#" + (next + 1));
  }

  function open(index) {
    const former = state.image === null ? null : images[state.image];
    const image = images[index];
    state.image = index;
    state.blinked = false;
    if (!former || former.width !== image.width || former.height !== image.height) {
      state.x = image.width / 2;
      state.y = image.height / 2;
    }
    layers = new Map();
    $("plane").replaceChildren();
    $("gallery").hidden = true;
    $("viewer").hidden = false;
    document.title = image.name;
    drawViewer();
    $("stage").focus({ preventScroll: true });
  }

  let scrolled = 0; // where the gallery was left

  function close() {
    const last = state.image;
    stopFlicker();
    pressed = null;
    state.image = null;
    $("viewer").hidden = true;
    $("gallery").hidden = false;
    document.title = data.title;
    if (last === null) return;
    drawGallery(); // perhaps in another order than before
    const rank = state.order.indexOf(last);
    while (made <= rank) makeMore();
    window.scrollTo(0, scrolled);
    $("cards").children[rank]?.firstChild.focus();
  }

  // The address after # says what is open: nothing, or an image's number.
  function route() {
    const index = Number(location.hash.slice(1)) - 1;
    if (images[index]) {
      if (state.image === null) scrolled = window.scrollY;
      open(index);
    } else {
      close();
    }
  }

  // Pressing: a key or a pointer goes down, and comes up after a while.

  let pressed = null; // when the blink began that may end with the press

  function pressBlink() {
    if (pressed !== null) return;
    pressed = performance.now();
    stopFlicker();
    $("flicker").setAttribute("aria-pressed", false);
    blink();
  }

  function releaseBlink() {
    if (pressed === null) return;
    if (performance.now() - pressed > HOLD_MS) blink();
    pressed = null;
  }

  // Pointers on the stage: one moves the image, or blinks if it stays; two zoom.

  const pointers = new Map();
  let gesture = null;

  const spread = () => {
    const [one, other] = [...pointers.values()];
    return Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
  };

  listen("stage", "pointerdown", (event) => {
    if (event.button || $("divider").contains(event.target)) return;
    $("stage").setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
    clearTimeout(gesture?.waiting);
    if (pointers.size === 1) {
      gesture = { x: state.x, y: state.y, from: event, moved: false, waiting: null };
      if (!state.swiping) gesture.waiting = setTimeout(pressBlink, HOLD_MS);
    } else if (pointers.size === 2) {
      if (pressed !== null) blink(); // back to what was there before the hold
      pressed = null;
      gesture = { zoom: state.zoom, spread: spread(), moved: true };
    }
  });

  listen("stage", "pointermove", (event) => {
    if (!pointers.has(event.pointerId) || !gesture) return;
    pointers.set(event.pointerId, event);
    if (pointers.size === 2) {
      const [one, other] = [...pointers.values()];
      const zoom = Math.round((gesture.zoom * spread()) / gesture.spread);
      const middle = [(one.clientX + other.clientX) / 2, (one.clientY + other.clientY) / 2];
      if (zoom !== state.zoom) zoomTo(zoom, ...middle);
      return;
    }
    if (!gesture.from) return;
    const [dx, dy] = [event.clientX - gesture.from.clientX, event.clientY - gesture.from.clientY];
    if (!gesture.moved && Math.hypot(dx, dy) < DRAG_PX) return;
    gesture.moved = true;
    clearTimeout(gesture.waiting);
    const scale = state.zoom / window.devicePixelRatio;
    state.x = gesture.x - dx / scale;
    state.y = gesture.y - dy / scale;
    place();
  });

  function release(event) {
    if (!pointers.delete(event.pointerId) || !gesture) return;
    clearTimeout(gesture.waiting);
    if (pressed !== null) {
      pressed = null;
      blink();
    } else if (!gesture.moved && !state.swiping && event.type === "pointerup") {
      stopFlicker();
      $("flicker").setAttribute("aria-pressed", false);
      blink();
    }
    gesture = null;
  }

  listen("stage", "pointerup", release);
  listen("stage", "pointercancel", release);

  let wheeled = 0;

  $("stage").addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      wheeled += event.deltaY;
      if (Math.abs(wheeled) < WHEEL_STEP) return;
      zoomTo(state.zoom - Math.sign(wheeled), event.clientX, event.clientY);
      wheeled = 0;
    },
    { passive: false },
  );

  // The divider

  function divide(split) {
    state.split = clamp(split, 0, 1);
    place();
  }

  listen("divider", "pointerdown", (event) => $("divider").setPointerCapture(event.pointerId));
  listen("divider", "pointermove", (event) => {
    if (!$("divider").hasPointerCapture(event.pointerId)) return;
    const box = $("stage").getBoundingClientRect();
    divide((event.clientX - box.left) / box.width);
  });

  // Keys

  const KEYS = {
    f: toggleFlicker,
    s: toggleSwipe,
    "+": () => zoomTo(state.zoom + 1),
    "=": () => zoomTo(state.zoom + 1),
    "-": () => zoomTo(state.zoom - 1),
    o: () => setOverlay(((state.overlay + 2) % (overlays.length + 1)) - 1),
    "[": () => setAt(state.at - 1),
    "]": () => setAt(state.at + 1),
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    Escape: () => location.assign("#"),
  };
  for (let zoom = 1; zoom <= MOST_ZOOM; zoom++) KEYS[zoom] = () => zoomTo(zoom);

  document.addEventListener("keydown", (event) => {
    if (state.image === null || event.ctrlKey || event.metaKey || event.altKey) return;
    const { target } = event;
    const arrow = event.key.startsWith("Arrow");
    if (target === $("divider") && arrow) {
      const by = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key] ?? 0;
      event.preventDefault();
      divide(state.split + by);
      return;
    }
    if (target.matches("select") || (arrow && target.matches("input"))) return;
    if (event.key === " ") {
      if (target.matches("button, summary") && target !== $("blink")) return;
      event.preventDefault();
      if (!event.repeat) pressBlink();
      return;
    }
    const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  document.addEventListener("keyup", (event) => {
    if (event.key !== " " || state.image === null) return;
    if (pressed !== null) event.preventDefault();
    releaseBlink();
  });

  // Controls

  press("order", () => {
    state.descending = !state.descending;
    drawGallery();
  });
  press("previous", () => step(-1));
  press("next", () => step(1));
  press("flicker", toggleFlicker);
  press("swipe", toggleSwipe);
  press("out", () => zoomTo(state.zoom - 1));
  press("in", () => zoomTo(state.zoom + 1));
  listen("blink", "click", (event) => {
    if (!event.detail) blink(); // Enter; a pointer has blinked when it went down
  });
  listen("blink", "pointerdown", pressBlink);
  listen("blink", "pointerup", releaseBlink);
  listen("blink", "pointercancel", releaseBlink);
  listen("blink", "pointerleave", releaseBlink);

  function choose(id, act) {
    listen(id, "input", () => act(Number($(id).value)));
  }

  choose("sort", (score) => {
    state.sort = score;
    drawGallery();
  });
  choose("at", (at) => {
    state.at = at;
    drawGallery();
  });
  choose("of", (copy) => {
    state.b = copy;
    drawGallery();
  });
  listen("find", "input", drawGallery);
  choose("a", (side) => {
    state.a = side;
    drawViewer();
  });
  choose("b", (side) => {
    state.b = side;
    drawViewer();
  });
  choose("slide", setAt);
  choose("choose", setAt);
  choose("overlay", setOverlay);
  choose("opacity", show);

  // Start

  const there = {
    copies: copies.length > 1,
    overlays: overlays.length > 0,
    settings: setting.values.length > 1,
    slider: setting.values.length > 1 && setting.kind === "slider",
    choice: setting.values.length > 1 && setting.kind === "choice",
  };
  for (const element of document.querySelectorAll("[data-if]")) {
    element.hidden = !there[element.dataset.if];
  }
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = data[element.dataset.text].name;
  }
  $("title").textContent = data.title;
  $("facts").textContent = data.facts;
  fill($("sort"), ["name", ...data.scores.map((score) => score.name)], -1);
  fill($("of"), copies.map((copy) => copy.name));
  for (const id of ["at", "choose"]) fill($(id), setting.values);
  for (const id of ["a", "b"]) fill($(id), ["original", ...copies.map((copy) => copy.name)], -1);
  fill($("overlay"), ["none", ...overlays.map((overlay) => overlay.name)], -1);
  $("slide").max = setting.values.length - 1;

  drawGallery();
  window.addEventListener("hashchange", route);
  new ResizeObserver(place).observe($("stage"));
  route();
})();
