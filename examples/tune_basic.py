"""Tune: 100 trials of a training function; Optuna proposes, ASHA stops the bad ones early."""

import numpy as np

from skate import tune

epochs = 20


class ConvNet:
    """A stand-in that trains quickly: a 3x3 filter learns to blur images, by gradient descent."""

    def __init__(self, config):
        rng = np.random.default_rng(0)
        self.alpha = config["alpha"]
        self.images = rng.normal(scale=3.0, size=(16, 12, 12))
        self.target = self._convolve(np.full((3, 3), 1 / 9)) + rng.normal(size=(16, 10, 10))
        self.kernel = rng.normal(size=(3, 3))

    def _convolve(self, kernel):
        windows = np.lib.stride_tricks.sliding_window_view(self.images, (3, 3), axis=(1, 2))
        return np.einsum("nijkl,kl->nij", windows, kernel)

    def train(self):
        """One step down the gradient; return the mean squared error before it."""
        error = self._convolve(self.kernel) - self.target
        windows = np.lib.stride_tricks.sliding_window_view(self.images, (3, 3), axis=(1, 2))
        gradient = 2 * np.einsum("nijkl,nij->kl", windows, error) / error.size
        self.kernel = self.kernel - self.alpha * gradient
        return float(np.mean(error**2))


def train_func(config):
    model = ConvNet(config)
    for _i in range(epochs):
        current_loss = model.train()
        tune.report(loss=current_loss)


def main():
    analysis = tune.run(
        train_func,
        config={"alpha": tune.uniform(0.001, 0.1)},
        num_samples=100,
        scheduler="asha",
        search_alg="optuna",
    )
    best = analysis.get_best_config(metric="loss", mode="min")
    print(f"best of {len(analysis.trials)} trials: alpha = {best['alpha']:.4f}")


if __name__ == "__main__":
    main()
