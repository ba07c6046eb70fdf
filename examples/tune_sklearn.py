"""Tune and scikit-learn: a network that learns digits; ASHA stops the slow learners early."""

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from skate import tune
from skate.tune.schedulers import ASHAScheduler

EPOCHS = 12


def train(config, data):
    x_train, x_test, y_train, y_test = data
    model = MLPClassifier(
        hidden_layer_sizes=[config["width"]] * config["layers"],
        learning_rate_init=config["lr"],
        alpha=config["alpha"],
        random_state=0,
    )
    for _epoch in range(EPOCHS):
        model.partial_fit(x_train, y_train, classes=range(10))
        tune.report(accuracy=model.score(x_test, y_test))


def main():
    images, digits = load_digits(return_X_y=True)
    data = train_test_split(images / 16, digits, random_state=0)
    tuner = tune.Tuner(
        # The data go into the object store once; every trial reads them from there.
        tune.with_parameters(train, data=data),
        param_space={
            "width": tune.choice([16, 32, 64]),
            "layers": tune.randint(1, 3),
            "lr": tune.loguniform(1e-4, 1e-1),
            "alpha": tune.loguniform(1e-6, 1e-2),
        },
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            num_samples=16,
            scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=2),
            seed=0,
        ),
        run_config=tune.RunConfig(name="digits"),
    )
    results = tuner.fit()
    best = results.get_best_result()
    print(f"good enough: {best.metrics['accuracy'] > 0.95}, with {best.config}")
    results.save_report("digits.html")


if __name__ == "__main__":
    main()
