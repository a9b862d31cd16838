"""Published tables in their full size, held to the printed figures."""

import os

import pytest

from laconic.lab.processes.pool import run_tasks
from laconic.reproduce.sasg_memory import SasgMemory
from laconic.reproduce.sasg_mnist import SasgMnist
from laconic.reproduce.ssgdmv_bits import SsgdMvBits
from laconic.reproduce.table import Request

pytestmark = pytest.mark.nightly

PRINTED = {
    "MV": 78.05, "MV-L2": 156.1, "MV-L4": 312.2, "MV-L8": 624.4, "MV-L8-Q": 1969, "MV-RS-L4": 312.2, "MV-RS-L8": 624.4,
    "AD": 93.02, "AD-L2": 186.05, "AD-L4": 372.09, "AD-L4-Q": 2000, "AD-L8": 744.19, "AD-L8-Q": 4000, "top-K": 78.05,
}  # fmt: skip


def measured(table, request):
    def ignore_progress(step):
        pass

    return run_tasks(table.tasks(table.plan(request)), os.cpu_count() or 1, ignore_progress)


def test_every_printed_ratio_is_met_within_half_a_percent_by_real_messages_and_add_drop_does_better():
    table = SsgdMvBits()
    up, down = table.compare(measured(table, Request())).sheets
    by_paper = {row[0]: float(row[3]) for row in up.rows}
    assert by_paper == pytest.approx(PRINTED, rel=0.005)
    wire_with_entropy_code = {row[0]: float(row[6]) for row in up.rows}
    assert wire_with_entropy_code["AD-L8-Q"] > 4500
    assert float(down.rows[-1][3]) == pytest.approx(8.8, rel=0.005)


def test_the_printed_server_memory_is_met_to_the_last_digit():
    table = SasgMemory()
    (sheet,) = table.compare(measured(table, Request())).sheets
    assert [row[1] for row in sheet.rows] == [row[3] for row in sheet.rows] == ["426.25", "4.26"]


@pytest.mark.skipif("LACONIC_MNIST" not in os.environ, reason="LACONIC_MNIST must name the folder of MNIST's files")
def test_every_method_gets_to_98_percent_and_the_lazier_it_is_the_fewer_uploads_it_takes():
    found = measured(SasgMnist(), Request(data=os.environ["LACONIC_MNIST"]))
    assert all(one["reached"] for one in found)
    uploads = {one["method"]: one["uploads"] for one in found}
    assert uploads["sasg"] < uploads["lasg"] < uploads["sgd"]
    assert uploads["sasg"] <= 0.45 * uploads["sgd"]
