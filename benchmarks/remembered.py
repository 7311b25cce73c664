"""How far a remembered zone is from one that is run in every window: the states, by the hours of warm-up.

    python benchmarks/remembered.py [--windows data/windows] [--checkpoint results/runs/tuned-0/model.ckpt]

Takes the LSTM of a trained forecaster, isolates three units in four as an autonomous zone, and compares its states over
the hours of the series three ways: one continuous run (`remember(series)`), lanes side by side (`remember(series,
warm=168)`), and windows from a zero state. Prints the relative L2 difference of the zone's states from the
continuous run, over 512 windows, after so many hours in the window.
"""

import argparse
from pathlib import Path

import torch

from isotrain.data.windows import Windows
from isotrain.lstm import LSTM

HOURS = (1, 6, 12, 24, 48, 96, 168)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=Path, default=Path("data/windows"))
    parser.add_argument("--checkpoint", type=Path, default=Path("results/runs/tuned-0/model.ckpt"))
    asked = parser.parse_args()
    state = torch.load(asked.checkpoint, weights_only=True)["state_dict"]
    weights = {name.split("lstm.")[1]: value for name, value in state.items() if "encoder.lstm." in name}
    layers = sum(name.startswith("weight_hh") for name in weights)
    lstm = LSTM(weights["weight_ih_l0"].shape[1], weights["weight_hh_l0"].shape[1], layers)
    lstm.load_state_dict(weights)
    zone = range(lstm.hidden_size * 3 // 4)
    lstm.isolate(units=zone, mode="autonomous")
    series = torch.from_numpy(Windows.load(asked.windows).inputs)
    continuous, lanes = lstm.remember(series), lstm.remember(series, warm=168)
    starts = torch.randint(1000, len(series) - 168, (512,), generator=torch.Generator().manual_seed(0))
    hours = starts + torch.arange(168)[:, None]
    lstm.eval()
    with torch.no_grad():
        top = lstm(series[hours])[0][..., : len(zone)]
    once = continuous[hours + 1][..., -len(zone) :]
    print(f"{layers} layers x {lstm.hidden_size} units, {len(zone)} of each autonomous; {len(series)} hours")
    far = (lanes - continuous)[1000:].norm() / continuous[1000:].norm()
    print(f"lanes with 168 h of warm-up: {float(far):.1e}")
    for hour in HOURS:
        difference = (top[hour - 1] - once[hour - 1]).norm() / once[hour - 1].norm()
        print(f"window from zero, after {hour:3d} h: {float(difference):.1e}")


if __name__ == "__main__":
    main()
