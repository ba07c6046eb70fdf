"""XGBoost on two training actors; the model is an ordinary ``xgboost.Booster``."""

from sklearn.datasets import load_breast_cancer

from skate.xgboost import RayDMatrix, RayParams, train


def main():
    train_x, train_y = load_breast_cancer(return_X_y=True)
    train_set = RayDMatrix(train_x, train_y)

    bst = train(
        {"objective": "binary:logistic"},
        train_set,
        ray_params=RayParams(num_actors=2),
    )
    bst.save_model("trained.xgb")
    print(f"{bst.num_boosted_rounds()} rounds; the model is in trained.xgb")


if __name__ == "__main__":
    main()
