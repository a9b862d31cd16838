"""What `attach` refuses, and that it does nothing where one worker is alone."""

import copy
import pickle
import re
import sys

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import laconic
import laconic.ddp
from support import methods, small_model
from support.ddp_refusals import BY_RANKS, refusals
from support.inputs import over_inputs
from support.ranks import ends_of_ranks, run_ranks


def test_a_model_of_one_worker_that_nothing_wraps_is_left_as_it_is(stated):
    handle = laconic.ddp.attach(small_model.net(), laconic.ECSGD())
    assert "exchanges nothing" in repr(handle)
    assert any("one worker trains" in text for text in stated.messages)
    assert handle.traffic == handle.total_traffic()
    assert (handle.state_dict(), handle.gather_state(), handle.aborted, handle.overlap) == ({}, {}, False, False)
    handle.load_state_dict({})
    assert not any("left out" in text for text in stated.messages)
    handle.load_state_dict({"algorithm": "ec-sgd"})
    assert any("the state is left out, since ec-sgd exchanges nothing here" in text for text in stated.messages)
    handle.replace(laconic.SGD())
    assert handle.algorithm == laconic.SGD()
    handle.detach()


WRONG = {
    "method=3": (3, {}),
    "cannot carry dist-ef: it reads the learning rate; pass optimizer=": (methods.with_test_settings("dist-ef"), {}),
    "cannot carry sparse: it reads the learning rate": (methods.with_test_settings("sparse"), {}),
    "cannot carry ssgd-mv": (methods.with_test_settings("ssgd-mv"), {}),
    "cannot carry lasg: it evaluates each mini-batch at two points": (methods.with_test_settings("lasg"), {}),
    "cannot carry sgd-server: its server holds the model": (methods.with_test_settings("sgd-server"), {}),
    "asgd does not go with DistributedDataParallel": (methods.with_test_settings("asgd"), {}),
    'layout="dedicated": its last rank trains nothing': (laconic.SignSGDMajorityVote(), {"layout": "dedicated"}),
    "local_steps=4 are steps of an optimizer": (laconic.SGD(), {"local_steps": 4}),
    "overlap=True: powersgd looks at the full vector": (laconic.PowerSGD(), {"overlap": True}),
    "layout=3 must be a text": (laconic.SGD(), {"layout": 3}),
    "seed='a' must be a whole number": (laconic.SGD(), {"seed": "a"}),
    "timeout_s=0 must be above 0": (laconic.SGD(), {"timeout_s": 0}),
    "timeout_s='a' must be a number of seconds": (laconic.SGD(), {"timeout_s": "a"}),
    "overlap='yes' must be True, False, or None": (laconic.SGD(), {"overlap": "yes"}),
    "overlap=True, local_steps=2: local steps are exchanged": (laconic.SGD(), {"overlap": True, "local_steps": 2}),
    "local_steps=1.5 must be a whole number": (laconic.SGD(), {"local_steps": 1.5}),
    "optimizer='sgd' must be the torch.optim.Optimizer": (laconic.SGD(), {"optimizer": "sgd"}),
    "optimizer=LBFGS evaluates its closure several times": (
        laconic.SGD(), {"optimizer": torch.optim.LBFGS(small_model.net().parameters())},
    ),
    "grad_scaler=1 must be a torch.amp.GradScaler": (laconic.SGD(), {"grad_scaler": 1}),
}  # fmt: skip


@over_inputs("message", WRONG)
def test_what_cannot_be_attached_is_refused_by_name(message):
    method, settings = WRONG[message]
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        laconic.ddp.attach(small_model.net(), method, **settings)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="model=int must be a"):
        laconic.ddp.attach(3, laconic.SGD())


@pytest.mark.usefixtures("group_of_one")
def test_a_module_in_several_models_is_refused_and_one_that_nobody_holds_does_not_count():
    net = small_model.net()
    wrapper = DistributedDataParallel(net)
    net.latest = [DistributedDataParallel(net)]  # a cycle: it is there until garbage is collected
    for several in (net, nn.Sequential(wrapper, DistributedDataParallel(nn.Linear(3, 3)))):
        with pytest.raises(ValueError, match=r"[23] DistributedDataParallel models have parameters of this Sequential"):
            laconic.ddp.attach(several, laconic.SGD())
    del several, net.latest
    handle = laconic.ddp.attach(net, laconic.SGD())
    assert handle.model is net
    assert wrapper.module is net
    handle.detach()


@pytest.mark.usefixtures("group_of_one")
def test_a_handle_is_neither_copied_nor_pickled_and_says_what_to_save():
    wrapper = DistributedDataParallel(small_model.net())
    handle = laconic.ddp.attach(wrapper, laconic.ECSGD())
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=re.escape("save handle.state_dict()")):
            copied(handle)
    handle.detach()


def test_a_plain_pair_warns_where_lightning_would_ignore_it(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, where Lightning registers hooks")
    monkeypatch.setitem(sys.modules, "lightning", nn)
    with pytest.warns(laconic.LaconicWarning, match="Lightning registers a ddp_comm_hook on GPUs only"):
        laconic.ddp.hook(laconic.SGD())


@pytest.mark.slow
def test_ranks_refuse_alike_what_only_several_of_them_show():
    for found in run_ranks(refusals, 2):
        for what, message in BY_RANKS.items():
            assert message in found[what], what


@pytest.mark.slow
def test_a_lost_rank_is_named_by_the_backward_pass_of_the_others():
    one, other = ends_of_ranks(refusals, 2, "lost")
    assert "PeerLostError" in one.error
    assert "rank 1" in one.error
    assert "ends by itself" in other.error
