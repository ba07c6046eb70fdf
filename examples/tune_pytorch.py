"""Tune and PyTorch (on CPUs): a trial that is stopped or fails goes on from its checkpoint.

Needs torch, which Skate does not: pip install torch==2.13.0
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from skate import tune
from skate.tune.schedulers import ASHAScheduler

EPOCHS = 12


def train(config, data):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    # Copied: arrays in the object store are read-only, which tensors cannot be.
    images, digits = (torch.tensor(array) for array in data)
    model = nn.Sequential(nn.Linear(64, config["width"]), nn.ReLU(), nn.Linear(config["width"], 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=config["momentum"])
    begin = 0
    if checkpoint := tune.get_checkpoint():
        state = checkpoint.to_dict()
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        begin = state["epoch"]
    for epoch in range(begin, EPOCHS):
        for batch in torch.randperm(1400).split(64):
            loss = nn.functional.cross_entropy(model(images[batch]), digits[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            correct = (model(images[1400:]).argmax(1) == digits[1400:]).float().mean().item()
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": epoch + 1,
        }
        tune.report({"accuracy": correct}, checkpoint=tune.Checkpoint.from_dict(state))


def main():
    images, digits = load_digits(return_X_y=True)
    data = (images.astype("float32") / 16, digits)
    tuner = tune.Tuner(
        tune.with_parameters(train, data=data),
        param_space={
            "width": tune.choice([32, 64, 128]),
            "lr": tune.loguniform(1e-3, 1.0),
            "momentum": tune.uniform(0.0, 0.95),
        },
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            num_samples=12,
            scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=2),
            seed=0,
        ),
        run_config=tune.RunConfig(
            failure_config=tune.FailureConfig(max_failures=2),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    )
    best = tuner.fit().get_best_result()
    weights = best.checkpoint.to_dict()["model"]
    print(
        f"good enough: {best.metrics['accuracy'] > 0.85}, {len(weights)} tensors of {best.config}"
    )


if __name__ == "__main__":
    main()
