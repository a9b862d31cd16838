"""The parameters' sizes of ResNet-18 for 32x32 images, as both papers count them."""


def layer_sizes(n_classes: int = 10) -> tuple[int, ...]:
    """Return the sizes in order: weights without biases, scale and shift of each batch norm.

    With 10 classes their sum is 11,173,962.
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
