"""Defaults and names that the help of the command line shows before torch is loaded."""

from laconic.telemetry.logs import kinds

DECAY_AT = "0.5,0.75"  # shares of the run; Ozfatura et al.: after 150 and 225 of 300 epochs
WARM_UP_FROM = 0.2  # share of the learning rate; Ozfatura et al.: from 0.1 to 0.5
SEED_BOUND = 1 << 63

# A test compares these with the registries, which import torch.
DATASET_NAMES = (
    "digits",
    "mnist",
    "fashion-mnist",
    "cifar10",
    "cifar100",
    "image-folder",
    "idx",
    "csv",
    "libsvm",
    "text",
)
LOG_KINDS = kinds.LOG_KINDS
PUBLISHED_NAMES = ("mnist", "fashion-mnist", "cifar10", "cifar100")
TASK_NAMES = ("classifier", "language-model", "logistic", "least-squares", "quadratic")
INNER_NAMES = ("sgd", "adamw", "muon")
MODEL_NAMES = ("linear", "mlp", "cnn", "resnet18", "resnet50", "transformer")

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Of the environment: what torchrun, or another launcher, sets for every process."""

MAX_VECTOR = 1 << 32  # parameters; a frame holds no more
MAX_PLANNED_WORKERS = 512
PICTURE_ENDINGS = (".png", ".svg", ".pdf")
