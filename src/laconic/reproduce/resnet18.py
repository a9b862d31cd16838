"""The parameters' sizes of ResNet-18 for 32x32 images, which both papers count with."""


def layer_sizes(n_classes: int = 10) -> tuple[int, ...]:
    """The sizes in order: weights without biases, a scale and a shift for each batch norm; 11,173,962 for 10 classes.

    He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2016, with a 3x3 first convolution, as is usual
    for CIFAR.
    """
    sizes = [3 * 3 * 3 * 64, 64, 64]
    width = 64
    for stage, wider in enumerate((64, 128, 256, 512)):
        for block in range(2):
            sizes += [3 * 3 * width * wider, wider, wider, 3 * 3 * wider * wider, wider, wider]
            if stage and not block:
                sizes += [width * wider, wider, wider]  # the shortcut
            width = wider
    return (*sizes, width * n_classes, n_classes)
