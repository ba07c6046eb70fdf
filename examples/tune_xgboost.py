"""Tune and XGBoost: each boosting round reports; Optuna proposes, ASHA stops early."""

import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from skate import tune
from skate.tune.schedulers import ASHAScheduler

ROUNDS = 40


class Report(xgboost.callback.TrainingCallback):
    """Tells Tune about each round."""

    def after_iteration(self, model, epoch, evals_log):
        tune.report(logloss=evals_log["test"]["logloss"][-1])
        return False


def train(config, data):
    x_train, x_test, y_train, y_test = data
    train_set = xgboost.DMatrix(x_train, y_train)
    test_set = xgboost.DMatrix(x_test, y_test)
    xgboost.train(
        {"objective": "binary:logistic", "eval_metric": "logloss", "nthread": 1, **config},
        train_set,
        num_boost_round=ROUNDS,
        evals=[(test_set, "test")],
        callbacks=[Report()],
        verbose_eval=False,
    )


def main():
    x, y = load_breast_cancer(return_X_y=True)
    analysis = tune.run(
        tune.with_parameters(train, data=train_test_split(x, y, random_state=0)),
        config={
            "eta": tune.loguniform(1e-3, 0.5),
            "max_depth": tune.randint(1, 9),
            "subsample": tune.uniform(0.5, 1.0),
            "min_child_weight": tune.choice([1, 2, 4]),
        },
        metric="logloss",
        mode="min",
        num_samples=24,
        search_alg="optuna",
        scheduler=ASHAScheduler(max_t=ROUNDS, grace_period=5),
        seed=0,
    )
    print(f"good enough: {analysis.best_result['logloss'] < 0.25}, with {analysis.best_config}")


if __name__ == "__main__":
    main()
