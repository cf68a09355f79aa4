# Mean and standard deviation of ImageNet-1k's channels R, G, B, in [0, 255].
mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]
