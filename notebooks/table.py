# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---
# %% [markdown]
# # A table, from end to end
#
# For people with rows, columns and one column to predict.
# At the end you have a model of a table with words and gaps, its coefficients by name, how sure it is of a new row,
# and the same from the command line.

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import bayesreg as br

# %% [markdown]
# ## The table
#
# 442 diabetes patients: ten measurements, and how far the disease went within a year.
# The data are clean, and tables are not; so `sex` becomes a word and every tenth blood pressure is lost.
# Two thirds are trained on.

# %%
table = load_diabetes(as_frame=True, scaled=False).frame
table["sex"] = np.where(table["sex"] == 1, "A", "B")
table.loc[table.sample(frac=0.1, random_state=0).index, "bp"] = np.nan
train, test = train_test_split(table, test_size=1 / 3, random_state=0)
table.head()

# %% [markdown]
# ## A model
#
# scikit-learn turns words and gaps into numbers, `br.MAPRegressor` fits.
# Its default prior is `"gaussian(auto)"`: a Gaussian on every coefficient, whose width is chosen from the training
# rows.
# No grid, no validation rows.

# %%
numbers = [name for name in table.columns if name not in ("sex", "target")]


def pipeline(model):
    filled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return make_pipeline(make_column_transformer((filled, numbers), (OneHotEncoder(drop="first"), ["sex"])), model)


def score(model):
    fitted = pipeline(model).fit(train.drop(columns="target"), train["target"])
    return fitted, fitted.score(test.drop(columns="target"), test["target"])


for name, model in {"br.MAPRegressor()": br.MAPRegressor(), "RidgeCV()": RidgeCV()}.items():
    print(f"{name:18} R² {score(model)[1]:.3f}")

# %% [markdown]
# As good as scikit-learn's, as it should be: ridge regression *is* a Gaussian prior.
# What the fit says beside:

# %%
ridge, _ = score(br.MAPRegressor())
ridge[-1].choice_.summary()

# %% [markdown]
# ## Another belief
#
# "Few of these measurements matter" is a Laplace prior.
# Coefficients that the data do not ask for are exactly 0, not merely small.
# They are in units of the disease score per standard deviation of a column, so their sizes compare.

# %% alt="Bars of the coefficients by name, the largest first; those that are exactly 0 are counted"
sparse, r2 = score(br.MAPRegressor("laplace(auto)"))
print(f"R² {r2:.3f}")
br.plots.plot_coefficients(dict(zip([*numbers, "sex = B"], sparse[-1].coef_, strict=True)))
plt.show()

# %% [markdown]
# ## How sure
#
# With Gaussian noise and a Gaussian prior the posterior is exact, and `return_std=True` gives the standard deviation
# of a new row's target: noise, and what the data leave open.
# If it is right, about 95 % of the rows that were not trained on lie within 1.96 of it.

# %% alt="Observed against predicted targets of the test rows, scattered about the line on which they agree"
mean, std = ridge.predict(test.drop(columns="target"), return_std=True)
inside = np.abs(test["target"] - mean) < 1.96 * std
print(f"{inside.mean():.0%} of {len(test)} rows; the standard deviation is {std.min():.0f} to {std.max():.0f}")
br.plots.plot_predicted(mean, test["target"])
plt.show()

# %% [markdown]
# ## Few rows: where a prior earns its keep
#
# With 20 rows and eleven coefficients least squares follows the noise.
# The prior's width is again chosen from those 20 rows.
# Thirty draws, so that luck does not decide; the middle half is in brackets.

# %%
found = {"no prior": [], "gaussian(auto)": []}
for seed in range(30):
    few = train.sample(20, random_state=seed)
    for name, scores in found.items():
        prior = br.Flat() if name == "no prior" else name
        fitted = pipeline(br.MAPRegressor(prior)).fit(few.drop(columns="target"), few["target"])
        scores.append(fitted.score(test.drop(columns="target"), test["target"]))
for name, scores in found.items():
    low, middle, high = np.percentile(scores, [25, 50, 75])
    print(f"{name:15} R² {middle:6.3f} [{low:.3f}, {high:.3f}]")

# %% [markdown]
# ## The same from the command line
#
# A CSV as it is, words and gaps included; what is done to each column is kept in the run folder with the model.

# %%
folder = Path(tempfile.mkdtemp())
train.to_csv(folder / "train.csv", index=False)
test.drop(columns="target").to_csv(folder / "new.csv", index=False)


def command(line):
    """Run a command line as a terminal would, and return the lines that it prints."""
    words = [sys.executable, "-m", *line.split()]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()


print(*command("bayesreg fit train.csv --target target --output run")[-22:], sep="\n")

# %%
print(*command("bayesreg predict run new.csv")[:4], sep="\n")
run = br.load_run(folder / "run")
forecast = run.predict(folder / "new.csv")
print(f"mean {float(forecast.mean[0]):.0f}, standard deviation of the noise {float(forecast.stddev[0]):.0f}")

# %% [markdown]
# Next: [the estimators](../docs/sklearn.md), with every prior and noise that they take;
# [how strong the prior should be](../docs/strength.md); [the command line](../docs/cli.md).
