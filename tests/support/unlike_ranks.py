"""A rank that trains with an inner optimizer, for processes whose processors are unlike."""

import torch

import laconic
from laconic.training.replica_check import hash_of
from support.deadlines import PATIENCE_S

INNER = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
}


class UnlikeRank:
    """One rank."""

    def train(self, name: str, replicas: str) -> tuple[str, int, str]:
        """The hash of the parameters after 20 rounds with a check after every 5, the syncs, and the capability."""
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
        opt = laconic.DistributedOptimizer(
            INNER[name](net.parameters()), laconic.SGD(), model=net, check_every=5, replicas=replicas,
            timeout_s=PATIENCE_S,
        )  # fmt: skip
        for _ in range(20):
            opt.zero_grad()
            net(torch.randn(16, 20)).square().mean().backward()
            opt.step()
        values = torch.cat([parameter.detach().reshape(-1) for parameter in net.parameters()])
        return hash_of(values), opt.traffic.replica_syncs, torch.backends.cpu.get_cpu_capability()
