"""Functions of a user, which worker processes import by name: NumPy only, so that they start fast."""

import os
import time

import numpy as np


def knapsack(values, weights, capacity):
    """Items of largest total value within the capacity; weights are whole numbers."""
    best = [(0.0, ())] * (int(capacity) + 1)
    for item, (gain, weight) in enumerate(zip(values.tolist(), weights.tolist(), strict=True)):
        for room in range(int(capacity), weight - 1, -1):
            with_it = best[room - weight][0] + gain
            if with_it > best[room][0]:
                best[room] = with_it, (*best[room - weight][1], item)
    y = np.zeros(len(values))
    y[list(best[-1][1])] = 1
    return y


def fits(y, weights, capacity):
    return bool(y @ weights <= capacity)


def greedy(values, weights, capacity):
    """Items by value per weight, as long as they fit."""
    y = np.zeros(len(values))
    for item in np.argsort(-values / weights):
        if values[item] > 0 and y @ weights + weights[item] <= capacity:
            y[item] = 1
    return y


def fragile(values):
    if values[0] < 0:
        raise ZeroDivisionError("no way out")
    return values > 0


def sleeper(theta):
    if theta[0] < 0:
        time.sleep(5)
    return theta > 0


def fatal(theta):
    return os._exit(3) if theta[0] < 0 else theta > 0
