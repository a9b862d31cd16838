"""Streams of random numbers, uniform words and normal numbers, for a key of `random_keys`."""

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_WORDS_OF_A_COUNTER = 4

# Wichura: Algorithm AS 241, the percentage points of the normal distribution, 1988, PPND16: numerator and denominator
# of each range, constant term first.
_CENTER = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
_TAIL = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_FAR_TAIL = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip
_LN_2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476


def words(key: int, count: int, offset: int = 0) -> Words:
    """Return the numbers offset .. offset + count - 1 of a key's stream of uniform 64-bit words, (count,) uint64.

    They are those of the generator Philox 4x64-10 (Salmon et al., SC 2011) in numpy, which keeps its streams.
    """
    generator = np.random.Philox(key=key)
    generator.advance(offset // _WORDS_OF_A_COUNTER)
    before = offset % _WORDS_OF_A_COUNTER
    numbers: Words = generator.random_raw(before + count)
    return numbers[before:]


def normals(key: int, count: int, offset: int = 0) -> Floats:
    """Return the numbers offset .. offset + count - 1 of a key's stream of standard normal ones, (count,) float64.

    Each is the normal quantile of one word. They have the same bits on every processor: they are made by additions,
    multiplications, divisions and square roots alone, one at a time, which IEEE 754 rounds in one way. No library's
    logarithm or exponential is used. The largest possible magnitude is 8.2.
    """
    probability = (words(key, count, offset) >> np.uint64(12)).astype(np.float64) * 2.0**-52 + 2.0**-53
    from_center = probability - 0.5
    inner = 0.180625 - from_center * from_center
    quantile = from_center * _ratio(_CENTER, inner)
    (far,) = np.nonzero(np.abs(from_center) > 0.425)
    tail = np.sqrt(-_log(np.minimum(probability[far], 1 - probability[far])))
    magnitude = np.where(tail <= 5, _ratio(_TAIL, tail - 1.6), _ratio(_FAR_TAIL, tail - 5))
    quantile[far] = np.copysign(magnitude, from_center[far])
    return quantile


def _ratio(polynomials: tuple[tuple[float, ...], tuple[float, ...]], x: Floats) -> Floats:
    """Return the quotient of two polynomials at x (n,), by Horner's rule."""
    above, below = (np.zeros_like(x) for _ in polynomials)
    for value, coefficients in zip((above, below), polynomials, strict=True):
        for coefficient in reversed(coefficients):
            value *= x
            value += coefficient
    return above / below


def _log(x: Floats) -> Floats:
    """Return the natural logarithm of x (n,), above 0, to the last bits: 2 artanh((m - 1)/(m + 1)) + e ln 2."""
    m, exponent = np.frexp(x)  # x = m 2**e
    small = m < _SQRT_HALF
    m = np.where(small, 2 * m, m)
    s = (m - 1) / (m + 1)
    square = s * s
    total = np.zeros_like(s)
    for power in range(21, 0, -2):
        total *= square
        total += 2.0 / power
    logarithm: Floats = total * s + (exponent - small) * _LN_2
    return logarithm
