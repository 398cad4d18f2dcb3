"""Weights and matrices of colour spaces. Channels are R, G, B."""

LUMA = (0.299, 0.587, 0.114)  # of ITU-R BT.601
