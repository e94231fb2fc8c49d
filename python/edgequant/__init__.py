"""edgequant: weights at 1 to 8 bits for every edge runtime."""
