"""isotrain.lstm.LSTM has the arguments of torch.nn.LSTM to the letter, and with any of them is torch.nn.LSTM."""

import copy
import inspect
import io
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pack_padded_sequence

from isotrain.errors import InputError
from isotrain.lstm import LSTM

pytestmark = pytest.mark.usefixtures("one_thread", "kernels")
STEPS, BATCH, INPUTS, HIDDEN = 9, 8, 5, 6  # enough cells for our kernels to be taken


def of_stock() -> list[str]:
    """The parameters of nn.LSTM, which declares them in an overload that says no more than *args at run time."""
    first = inspect.signature(nn.RNNBase.__init__).parameters
    return [name for name in first if name not in ("self", "mode")]


def test_the_arguments_are_those_of_torch_in_its_order_and_ours_come_by_keyword() -> None:
    ours = {name: p for name, p in inspect.signature(LSTM).parameters.items() if name != "self"}
    by_keyword = [name for name, p in ours.items() if p.kind is p.KEYWORD_ONLY]
    assert by_keyword == ["backend", "compute"]
    assert [name for name in ours if name not in by_keyword] == of_stock()
    stock = inspect.signature(nn.RNNBase.__init__).parameters
    for name in of_stock():
        if stock[name].default is not inspect.Parameter.empty:
            assert ours[name].default == stock[name].default, name


GRID = [
    {"num_layers": layers, "bias": bias, "batch_first": batch_first, "bidirectional": two, "proj_size": size}
    for layers, bias, batch_first, two, size in itertools.product(
        (1, 2), (True, False), (True, False), (True, False), (0, 3)
    )
]


def pair(options: dict[str, Any], dtype: torch.dtype, positions: bool = False, **ours: Any) -> tuple[LSTM, nn.LSTM]:
    """Both built from the same seed, so that even the initial weights have to be equal."""
    nets = []
    for kind, own in ((LSTM, ours), (nn.LSTM, {})):
        torch.manual_seed(0)
        if positions:
            everything = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
            everything |= {"proj_size": 0, "device": None, "dtype": dtype} | options
            nets.append(kind(INPUTS, HIDDEN, *everything.values(), **own))
        else:
            nets.append(kind(INPUTS, HIDDEN, **options, dtype=dtype, **own))
    return nets[0], nets[1]  # type: ignore[return-value]


def answer(net: nn.Module, x: Tensor, hx: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:
    net.zero_grad()
    x = x.clone().requires_grad_()
    y, (h, c) = net(x, hx)
    (y.sin().sum() + h.square().sum() + c.cos().sum()).backward()
    assert x.grad is not None
    found = {"y": y, "h": h, "c": c, "dx": x.grad}
    return found | {f"d{name}": p.grad for name, p in net.named_parameters() if p.grad is not None}


def states(options: dict[str, Any], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    rows = options["num_layers"] * (1 + options["bidirectional"])
    return (
        torch.randn(rows, BATCH, options["proj_size"] or HIDDEN, dtype=dtype),
        torch.randn(rows, BATCH, HIDDEN, dtype=dtype),
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("with_states", [True, False])
@pytest.mark.parametrize("options", GRID, ids=lambda o: "-".join(f"{value:d}" for value in o.values()))
def test_with_any_arguments_it_is_torchs(options: dict[str, Any], with_states: bool, dtype: torch.dtype) -> None:
    ours, stock = pair(options, dtype, positions=with_states)
    assert list(ours.state_dict()) == list(stock.state_dict())
    assert all(torch.equal(value, stock.state_dict()[name]) for name, value in ours.state_dict().items())
    shape = (BATCH, STEPS, INPUTS) if options["batch_first"] else (STEPS, BATCH, INPUTS)
    x, hx = torch.randn(shape, dtype=dtype), states(options, dtype) if with_states else None
    found, expected = answer(ours, x, hx), answer(stock, x, hx)
    assert found.keys() == expected.keys()
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], **tolerance, msg=lambda m, name=name: f"{name}: {m}")
    one = x[0] if options["batch_first"] else x[:, 0]  # a sequence without a batch
    for a, b in zip((ours(one)[0], *ours(one)[1]), (stock(one)[0], *stock(one)[1]), strict=True):
        torch.testing.assert_close(a, b, **tolerance)
    special = options["bidirectional"] or options["proj_size"] or dtype == torch.float64
    assert ours.backend_for(x).name == ("torch" if special else "native")


@pytest.mark.parametrize("options", GRID, ids=lambda o: "-".join(f"{value:d}" for value in o.values()))
def test_packed_sequences_are_torchs(options: dict[str, Any]) -> None:
    ours, stock = pair(options, torch.float32)
    shape = (BATCH, STEPS, INPUTS) if options["batch_first"] else (STEPS, BATCH, INPUTS)
    lengths = torch.tensor([9, 2, 5, 1, 9, 3, 4, 8])
    packed = pack_padded_sequence(torch.randn(shape), lengths, options["batch_first"], enforce_sorted=False)
    (y, (h, c)), (right, (right_h, right_c)) = ours(packed), stock(packed)
    assert torch.equal(y.data, right.data) and torch.equal(h, right_h) and torch.equal(c, right_c)
    assert ours.chosen is not None and ours.chosen.name == "torch"


@pytest.mark.parametrize("options", [o for o in GRID if o["bidirectional"] or o["proj_size"]])
def test_layers_can_be_isolated_whatever_the_arguments(options: dict[str, Any]) -> None:
    if options["num_layers"] == 1:
        options = options | {"num_layers": 3}
    ours, stock = pair(options, torch.float64)
    shape = (BATCH, STEPS, INPUTS) if options["batch_first"] else (STEPS, BATCH, INPUTS)
    x, hx = torch.randn(shape, dtype=torch.float64), states(options, torch.float64)
    expected = answer(stock, x, hx)
    for isolated in range(options["num_layers"]):
        ours.isolate(layer=isolated)
        found = answer(ours, x, hx)
        missing = {name for name in expected if f"_l{isolated}" in name}
        assert expected.keys() - found.keys() == missing and missing
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12)


def test_the_last_steps_of_an_lstm_with_projections() -> None:
    ours, stock = pair({"proj_size": 3}, torch.float64)
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)
    ours.isolate(steps=4)
    answers = answer(ours, x, None)
    with torch.no_grad():
        _, hx = stock(x[:-4])
    y, (h, c) = stock(x[-4:], hx)
    (y.sin().sum() + h.square().sum() + c.cos().sum()).backward()
    for name, p in stock.named_parameters():
        torch.testing.assert_close(answers[f"d{name}"], p.grad, rtol=1e-10, atol=1e-12)


def test_dropout_draws_what_torch_draws_in_two_directions() -> None:
    ours, stock = pair({"num_layers": 3, "dropout": 0.5, "bidirectional": True}, torch.float64)
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)
    for isolated in ((), (1,)):
        ours.isolate(layer=isolated)
        outputs = []
        for net in (ours, stock):
            torch.manual_seed(1)
            outputs.append(net(x)[0])
        assert torch.equal(*outputs)


# What it cannot do is refused by name ------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_backend_that_knows_one_direction_and_no_projections_says_so_at_construction(backend: Any) -> None:
    with pytest.raises(
        InputError, match=f"backend '{backend}' cannot compute a bidirectional LSTM: use backend 'torch'"
    ):
        LSTM(3, 4, bidirectional=True, backend=backend)
    with pytest.raises(InputError, match=rf"backend '{backend}' cannot compute an LSTM with projections \(proj_size\)"):
        LSTM(3, 4, proj_size=2, backend=backend)
    packed = pack_padded_sequence(torch.randn(5, 2, 3), torch.tensor([5, 2]))
    with pytest.raises(InputError, match=f"backend '{backend}' cannot compute packed sequences"):
        LSTM(3, 4, backend=backend)(packed)


def test_units_of_two_directions_or_of_projections_and_steps_of_two_directions_are_refused() -> None:
    for options, what in (({"bidirectional": True}, "a bidirectional LSTM"), ({"proj_size": 2}, "an LSTM with proj")):
        net = LSTM(3, 4, 2, **options)  # type: ignore[arg-type]
        for mode in ("exact", "cut", "autonomous"):
            with pytest.raises(InputError, match=f"units cannot be isolated in {what}.*: isolate whole layers"):
                net.isolate(units=[1], mode=mode)  # type: ignore[arg-type]
        assert net.isolated.nothing
        net.isolate(units=[1], mode="masked")
        net.isolate(layer=0)
        with pytest.raises(InputError, match="nothing to remember"):
            net.remember(torch.randn(9, 3))
    with pytest.raises(InputError, match="steps = 2: a bidirectional LSTM also reads from the last step to the first"):
        LSTM(3, 4, bidirectional=True).isolate(steps=2)


def test_steps_of_mode_autonomous_are_refused_without_units() -> None:
    with pytest.raises(InputError, match=r"mode 'autonomous' is a mode of units: .* with mode 'exact'"):
        LSTM(3, 4).isolate(steps=2, mode="autonomous")


@pytest.mark.parametrize("x", [torch.zeros(4), torch.zeros(2, 3, 4, 5)], ids=["1D", "4D"])
def test_wrong_inputs_get_torchs_own_errors(x: Tensor) -> None:
    messages = []
    for net in (LSTM(5, 6), nn.LSTM(5, 6)):
        with pytest.raises(ValueError, match="2D or 3D") as raised:
            net(x)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_wrong_sizes_get_torchs_own_errors() -> None:
    x, good = torch.zeros(5, 4, 3), torch.zeros(2, 4, 6)
    for bad in ((x[..., :2], None), (x, (good[:1], good)), (x, (good, good[:, :3])), (x, (good[..., :5], good))):
        messages = []
        for net in (LSTM(3, 6, 2), nn.LSTM(3, 6, 2)):
            with pytest.raises(RuntimeError) as raised:
                net(*bad)
            messages.append(str(raised.value))
        assert messages[0] == messages[1]


# What else is done to modules -------------------------------------------------------------------------------------

KINDS = [{}, {"bias": False}, {"bidirectional": True}, {"proj_size": 3}, {"num_layers": 2, "batch_first": True}]


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_copies_and_files_compute_the_same_and_train_apart(how: str, options: dict[str, Any]) -> None:
    ours, _ = pair(options, torch.float32)
    x = torch.randn(STEPS, BATCH, INPUTS)
    if how == "deepcopy":
        twin = copy.deepcopy(ours)
    elif how == "pickle":
        twin = pickle.loads(pickle.dumps(ours))
    else:
        file = io.BytesIO()
        torch.save(ours, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    right = answer(ours, x, None)
    for name, value in answer(twin, x, None).items():
        assert torch.equal(value, right[name]), name
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert not twin(x)[0].any()
    assert torch.equal(ours(x)[0], right["y"])


@pytest.mark.parametrize("options", KINDS)
def test_it_goes_to_other_precisions_and_devices(options: dict[str, Any]) -> None:
    ours, stock = pair(options, torch.float32)
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)
    torch.testing.assert_close(ours.double()(x)[0], stock.double()(x)[0], rtol=1e-12, atol=1e-12)
    assert ours.float()(x.float())[0].dtype == torch.float32
    assert ours.to(torch.bfloat16)(x.bfloat16())[0].dtype == torch.bfloat16
    assert ours.to("meta")(x.bfloat16().to("meta"))[0].shape == stock(x)[0].shape
    assert LSTM(INPUTS, HIDDEN, **options, device="meta").weight_hh_l0.device.type == "meta"


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


@pytest.mark.parametrize("options", KINDS)
def test_parametrised_weights_are_computed_with_and_trained(options: dict[str, Any]) -> None:
    ours, stock = pair(options, torch.float32)
    x = torch.randn(STEPS, BATCH, INPUTS)
    if options.get("batch_first"):
        x = x.transpose(0, 1)
    before = ours(x)[0]
    for net in (ours, stock):
        parametrize.register_parametrization(net, "weight_hh_l0", Doubled())
    found, expected = answer(ours, x, None), answer(stock, x, None)
    assert not torch.allclose(found["y"], before) and "dparametrizations.weight_hh_l0.original" in found
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(copy.deepcopy(ours)(x)[0], found["y"])
    if not options.get("bidirectional") and not options.get("proj_size"):
        ours.isolate(units=[0, 1])
        some = answer(ours, x, None)["dparametrizations.weight_hh_l0.original"]
        assert not some[:2].any() and some[2:].any()
        with pytest.raises(InputError, match="mode 'autonomous' sets weights to 0: remove their parametrisation"):
            ours.isolate(units=[0], mode="autonomous")
    parametrize.remove_parametrizations(ours, "weight_hh_l0")
    ours.isolate()
    torch.testing.assert_close(ours(x)[0], found["y"])


class Scripted(nn.Module):
    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x)
        return y


def test_a_script_is_refused_and_the_way_that_it_names_gives_the_same_outputs() -> None:
    lstm, x = LSTM(3, 8, 2).eval(), torch.randn(20, 8, 3)
    with pytest.raises(
        InputError, match=r"torch\.jit\.script cannot compile .*load its state_dict into a torch\.nn\.LSTM"
    ):
        torch.jit.script(Scripted(lstm))
    same = nn.LSTM(3, 8, 2).eval()
    same.load_state_dict(lstm.state_dict())
    torch.testing.assert_close(torch.jit.script(Scripted(same))(x), lstm(x)[0])
