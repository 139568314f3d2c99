"""A plain PyTorch loop, watched by a monitor that stops it when the weights go wrong.

python -m examples.plain_loop
python -m examples.plain_loop --learning-rate 5       see what a rate that is too high looks like
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from examples.data import digits
from ww_callbacks import SpectralMonitor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--log-dir", default="runs/plain")
    args = parser.parse_args()

    torch.manual_seed(0)
    (images, labels), _ = digits()
    inputs, targets = torch.from_numpy(images).flatten(1), torch.from_numpy(labels)
    model = nn.Sequential(nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))
    optimizer = torch.optim.SGD(model.parameters(), args.learning_rate, momentum=0.9)

    step = 0
    with SpectralMonitor(model, log_dir=args.log_dir, early_stopping="cautious") as monitor:
        for epoch in range(args.epochs):
            total = 0.0
            for batch in torch.randperm(len(inputs)).split(64):
                loss = nn.functional.cross_entropy(model(inputs[batch]), targets[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                total += loss.item() * len(batch)
            monitor.observe(step=step, epoch=epoch + 1, train_loss=total / len(inputs))
            if monitor.should_stop:
                print(monitor.stop_reason)
                break
    print(monitor.history.query("epoch == epoch.max()")[["layer", "alpha", "alpha_evidence", "effective_rank"]])
    print("Verdict:", monitor.verdict)


if __name__ == "__main__":
    main()
