"""What a model needs of the shape of one input."""


def image_shape(name: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (channels, height, width).

    Raises:
        ValueError: The inputs are no images.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"{name}: input_shape={input_shape} must be (channels, height, width); "
            "take mlp or linear for inputs that are not images"
        )
    channels, height, width = input_shape
    return channels, height, width
