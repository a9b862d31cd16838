"""Logistic regression and least squares: sparse rows, and a minimum that is one."""

import numpy
import pytest
import torch

from laconic.errors import OptionError, Spelling
from laconic.lab.datasets.libsvm import libsvm_rows, libsvm_table
from laconic.lab.datasets.sparse import Products, SparseRows
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.files import columns_of
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from laconic.lab.tasks.convex import Objective


def written(folder, n=60, c=5, name="two.libsvm"):
    """Write rows of two classes, some of them empty, and return the file and what stands in it."""
    generator = torch.Generator().manual_seed(3)
    dense = torch.randn(n, c, generator=generator) * (torch.rand(n, c, generator=generator) < 0.5)
    labels = (dense.sum(1) + torch.randn(n, generator=generator) > 0).long()
    lines = [
        " ".join([str(2 * int(label) - 1), *(f"{i + 1}:{float(v)!r}" for i, v in enumerate(row) if v)])
        for row, label in zip(dense, labels, strict=True)
    ]
    file = folder / name
    file.write_text("\n".join(lines) + "\n")
    return file, dense, labels


def settings(file, **options):
    base = {"algorithm": "sgd", "task": "logistic", "dataset": "libsvm", "data": str(file), "workers": 2}
    return RunSettings(**base | {"batch_size": 4, "epochs": 1} | options)


def test_sparse_rows_are_the_dense_ones():
    generator = torch.Generator().manual_seed(1)
    dense = torch.randn(7, 4, generator=generator) * (torch.rand(7, 4, generator=generator) < 0.4)
    dense[3] = 0
    rows = SparseRows.of_dense(dense)
    chosen = torch.tensor([5, 3, 0, 5])
    row, column, value = rows.taken(chosen)
    found = torch.zeros(4, 4)
    found[row, column] = value
    assert torch.equal(found, dense[chosen])
    for part, expected in (
        (rows, dense),
        (rows.selected(chosen), dense[chosen]),
        (rows.with_constant(), torch.cat([dense, torch.ones(7, 1)], 1)),
    ):
        products, wanted = Products(part), expected.double().numpy()
        n, c = wanted.shape
        assert products.shape == (n, c)
        for one, other in (
            (products.times(numpy.arange(c) + 1.0), wanted @ (numpy.arange(c) + 1.0)),
            (products.transposed_times(numpy.arange(n) + 1.0), wanted.T @ (numpy.arange(n) + 1.0)),
            (products.squared_norms(), (wanted**2).sum(1)),
            (products.gram(numpy.arange(n) + 1.0), wanted.T @ (wanted * (numpy.arange(n) + 1.0)[:, None])),
        ):
            assert numpy.allclose(one, other)


def test_a_libsvm_file_has_the_same_examples_sparse_as_dense(tmp_path):
    file, _, _ = written(tmp_path)
    test_file, _, _ = written(tmp_path, n=20, c=4, name="test.libsvm")
    for test_data in (None, test_file):
        sparse, dense = libsvm_rows(file, test_data=test_data), libsvm_table(file, test_data=test_data)
        for rows, labels, inputs, targets in (
            (sparse.train, sparse.train_labels, dense.train_inputs, dense.train_labels),
            (sparse.test, sparse.test_labels, dense.test_inputs, dense.test_labels),
        ):
            row, column, value = rows.taken(torch.arange(len(rows)))
            found = torch.zeros(inputs.shape)
            found[row, column] = value
            assert torch.equal(found, inputs)
            assert torch.equal(labels, targets)
    some = libsvm_rows(file).sampled(10, 4)
    row, column, value = some.train.taken(torch.arange(10))
    found = torch.zeros(10, 5)
    found[row, column] = value
    assert torch.equal(found, libsvm_table(file).sampled(10, 4).train_inputs)


def test_the_minimum_is_one_and_the_gradient_is_that_of_the_loss(tmp_path):
    file, _, _ = written(tmp_path)
    for name in ("logistic", "least-squares"):
        plan = settings(file, task=name, task_set={"l2": "0.01"}, workers=1, batch_size=48)
        task = Experiment(plan).task
        objective: Objective = task._objective
        weights = numpy.linspace(-1, 1, objective.products.shape[1])
        with torch.no_grad():
            task.model.weights.copy_(torch.from_numpy(weights))
        loss = task.loss(0, 0)  # of all 48 train examples
        loss.backward()
        assert float(loss.detach()) == pytest.approx(objective.value(weights), rel=1e-5), name
        assert numpy.allclose(task.model.weights.grad, objective.gradient(weights), atol=1e-5), name
        assert task.squared_gradient() == pytest.approx(float((objective.gradient(weights) ** 2).sum()), rel=1e-4)
        assert task.judge().gap == pytest.approx(objective.value(weights) - task.minimum, rel=1e-5)
        smoothness = task.bounds().smoothness
        for _ in range(3000):  # gradient descent at 1/L, which may not end below f*
            weights = weights - objective.gradient(weights) / smoothness
        assert 0 <= objective.value(weights) - task.minimum < 1e-9, name


def test_a_run_on_sparse_rows_closes_the_gap_and_records_accuracy_beside_it(tmp_path):
    file, _, _ = written(tmp_path)
    plan = settings(file, epochs=20, lr=0.5, task_set={"squared_gradient": "true"})
    record = run_simulated(plan, lambda progress: None)
    assert record.rows[0].gap > record.last.gap > 0
    assert record.last.mean_squared_gradient < record.rows[0].mean_squared_gradient
    assert record.last.test_accuracy > 0.6
    assert record.spec.d == 6, "five features, and the constant one"
    assert columns_of(plan)[-2:] == ("gap", "mean_squared_gradient")
    without = run_simulated(settings(file, task_set={"gap": "false", "bias": "false"}), lambda progress: None)
    assert (without.last.gap, without.spec.d) == (None, 5)
    theory = Experiment(settings(file, lr="theory"))
    bounds = theory.task.bounds()
    expected_lr = 1 / (bounds.smoothness + bounds.noise * (theory.steps * bounds.smoothness / 2) ** 0.5)
    assert theory.learning_rate == pytest.approx(expected_lr)


def test_what_does_not_fit_a_convex_task_is_refused(tmp_path):
    file, _, _ = written(tmp_path)
    high = tmp_path / "high.libsvm"
    high.write_text("".join(f"{sign} 5000:{n}\n" for n in range(1, 9) for sign in (-1, 1)))
    for options, words in (
        ({"dataset": "digits", "data": None}, "task='logistic' is for two classes, and digits has 10"),
        ({"model": "linear"}, "model='linear' is not for task='logistic'"),
        ({"task_set": {"l2": "0"}}, "logistic: l2=0.0 must be in"),
        ({"data": str(high), "batch_size": 1}, "high.*|libsvm has 5,001 features, and the minimum is found of at most"),
    ):
        with pytest.raises((OptionError, ValueError), match=words):
            Experiment(settings(file, **options))


def test_data_without_a_minimum_that_can_be_found_end_in_one_line_with_the_remedy(tmp_path):
    far, twice = tmp_path / "far.libsvm", tmp_path / "twice.libsvm"
    far.write_text("".join(f"{sign} 1:{sign}e{power}\n" for power in range(-36, 37) for sign in (-1, 1)))
    twice.write_text("".join(f"{sign} 1:{n} 2:{n}\n" for n in range(1, 9) for sign in (-1, 1)))  # a singular matrix
    for file, l2 in ((far, "1e-4"), (twice, "1e-30")):
        with pytest.raises(OptionError) as caught:
            Experiment(settings(file, batch_size=1, task_set={"l2": l2, "bias": "false"}))
        line = caught.value.spelled(Spelling.FLAG)
        assert "--task-set gap=true: Newton's method does not find the minimum in 100 steps" in line, file.name
        assert line.endswith(f"raise l2 above {float(l2):g}, or give gap=false"), file.name
