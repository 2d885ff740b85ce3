import io
import sys

import keras
import numpy as np
import pytest
from rich.console import Console

from dermaseg.progress import counting, training_progress


def train(console):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.zeros((4, 1), "float32")
    with training_progress(console) as shown:
        model.fit(x, x, validation_data=(x, x), epochs=3, callbacks=[shown], verbose=0)


def test_a_training_says_one_line_where_there_is_no_terminal():
    written = io.StringIO()
    train(Console(file=written))
    (line,) = written.getvalue().splitlines()
    assert line.startswith("epoch 3/3  ")
    assert "val_loss 0.0000" in line


def test_a_training_says_a_line_an_epoch_on_a_terminal():
    written = io.StringIO()
    train(Console(file=written, force_terminal=True, width=200))
    assert all(f"epoch {epoch}/3  " in written.getvalue() for epoch in (1, 2, 3))


@pytest.mark.parametrize("show", [counting, training_progress])
def test_results_stay_in_a_pipe_beside_a_bar(show, capsys):
    written = io.StringIO()
    console = Console(file=written, force_terminal=True)
    with show(console, "work") if show is counting else show(console):
        sys.stdout.write("a result\n")
    assert capsys.readouterr().out == "a result\n"
    assert "a result" not in written.getvalue()
