"""Tune and LightGBM: each boosting round reports; the best model comes back as a checkpoint."""

import lightgbm
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from skate import tune
from skate.tune.schedulers import ASHAScheduler

ROUNDS = 40


def report(environment):
    """Tell Tune about a round, and every ten rounds hand over the model."""
    done = environment.iteration + 1
    checkpoint = None
    if done % 10 == 0:
        checkpoint = tune.Checkpoint.from_dict({"model": environment.model.model_to_string()})
    loss = environment.evaluation_result_list[0][2]
    tune.report({"logloss": loss}, checkpoint=checkpoint)


def train(config, data):
    x_train, x_test, y_train, y_test = data
    train_set = lightgbm.Dataset(x_train, y_train)
    lightgbm.train(
        {"objective": "binary", "metric": "binary_logloss", "num_threads": 1, "verbose": -1}
        | config,
        train_set,
        num_boost_round=ROUNDS,
        valid_sets=[lightgbm.Dataset(x_test, y_test, reference=train_set)],
        callbacks=[report],
    )


def main():
    x, y = load_breast_cancer(return_X_y=True)
    data = train_test_split(x, y, random_state=0)
    tuner = tune.Tuner(
        tune.with_parameters(train, data=data),
        param_space={
            "learning_rate": tune.loguniform(1e-3, 0.5),
            "num_leaves": tune.randint(4, 64),
            "min_data_in_leaf": tune.randint(5, 40),
        },
        tune_config=tune.TuneConfig(
            metric="logloss",
            mode="min",
            num_samples=16,
            scheduler=ASHAScheduler(max_t=ROUNDS, grace_period=10),
            seed=0,
        ),
    )
    best = tuner.fit().get_best_result()
    model = lightgbm.Booster(model_str=best.checkpoint.to_dict()["model"])
    correct = ((model.predict(data[1]) > 0.5) == data[3]).mean()
    print(f"good enough: {correct > 0.9}, with {best.config}")


if __name__ == "__main__":
    main()
