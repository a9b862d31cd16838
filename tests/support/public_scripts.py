"""Training scripts as users have them, in `tests/ddp/public`, and the lines that let each train by a method."""

import difflib
import hashlib
import os
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "ddp" / "public"
IMPORT = ("import torch\n", "import torch\n\nimport laconic\n")

# Script: the method, and its changed lines, each as what stands there and what replaces it.
CHANGES = {
    "images": ("ec-sgd", [
        IMPORT,
        ("    model = DistributedDataParallel(Net())\n", "    model = Net()\n"),
        ("lr=1.0)\n", "lr=1.0)\n"
                      "    optimizer = laconic.DistributedOptimizer(optimizer, laconic.ECSGD(), model=model)\n"),
    ]),
    "gan": ("ec-sgd", [
        IMPORT,
        ("    random, losses", "    laconic.ddp.attach(judge, laconic.ECSGD(), optimizer=judge_opt, overlap=False)\n"
                              "    laconic.ddp.attach(painter, laconic.ECSGD())\n"
                              "    random, losses"),
    ]),
    "words": ("powersgd", [
        IMPORT,
        ("(WordModel())\n", "(WordModel())\n    laconic.ddp.attach(model, laconic.PowerSGD(rank=2))\n"),
    ]),
    "residual_net": ("ec-sgd", [
        IMPORT,
        ("    begin, losses", "    handle = laconic.ddp.attach(model, laconic.ECSGD())\n    begin, losses"),
        ('["scheduler"])\n', '["scheduler"])\n        handle.load_state_dict(checkpoint["laconic"])\n'),
        ("        if dist.get_rank() == 0:\n", "        gathered = handle.gather_state()\n"
                                              "        if dist.get_rank() == 0:\n"),
        ('scheduler.state_dict(),\n', 'scheduler.state_dict(),\n                "laconic": gathered,\n'),
    ]),
    "characters": ("signsgd-mv", [
        IMPORT,
        ("(raw_model)\n", "(raw_model)\n    laconic.ddp.attach(model, laconic.SignSGDMajorityVote())\n"),
    ]),
    "by_transformers": ("ec-sgd", [
        IMPORT,
        ("\n\ndef train(", "\n\nclass Attach(transformers.TrainerCallback):\n"
                          "    def on_train_begin(self, args, state, control, **others):\n"
                          '        laconic.ddp.attach(others["model"], laconic.ECSGD())\n\n\ndef train('),
        ("train_dataset=rows)", "train_dataset=rows, callbacks=[Attach()])"),
    ]),
    "by_lightning": ("ec-sgd", [
        IMPORT,
        ("    def training_step(", "    def on_train_start(self):\n"
                                 "        laconic.ddp.attach(self.trainer, laconic.ECSGD())\n\n"
                                 "    def training_step("),
    ]),
}  # fmt: skip


N_RANKS = 2
AS_TORCHRUN = {
    "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "none",
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1",  # nobody connects: the group is there
}  # fmt: skip


def without_method(name):
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def with_method(name):
    """The script, by a method."""
    text = without_method(name)
    for there, instead in CHANGES[name][1]:
        assert text.count(there) == 1, f"{name}: {there!r}"
        text = text.replace(there, instead)
    return text


def n_changed(name):
    """How many lines a user writes or removes, but for blank ones; a line in place of another counts once."""
    before, after = ([line for line in text.splitlines() if line] for text in (without_method(name), with_method(name)))
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return sum(max(i2 - i1, j2 - j1) for kind, i1, i2, j1, j2 in blocks if kind != "equal")


def train(rank, name, steps, has_method, *arguments):
    """Run a script's `train` on this rank: the losses, and a hash of all parameters."""
    os.environ |= {**AS_TORCHRUN, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    text = with_method(name) if has_method else without_method(name)
    scope = {"__name__": name}
    exec(compile(text, str(FOLDER / f"{name}.py"), "exec"), scope)
    losses, models = scope["train"](steps, *arguments)
    digest = hashlib.sha256()
    for model in models:
        for parameter in model.parameters():
            digest.update(parameter.detach().numpy().tobytes())
    return losses, digest.hexdigest()
