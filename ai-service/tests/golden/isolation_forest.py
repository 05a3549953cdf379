"""Makes isolation_forest.json: points of two features and the mean score that scikit-learn's IsolationForest (100 trees,
256 points each, ten seeds) gives them. Run with scikit-learn installed: python isolation_forest.py > isolation_forest.json
"""
import json

import numpy
import sklearn
from sklearn.ensemble import IsolationForest

random = numpy.random.default_rng(20261120)
normal = random.multivariate_normal([72.0, 3.0], [[0.25, 0.1], [0.1, 0.09]], size=500)
strange = numpy.array([[78.0, 3.0], [72.0, 6.0], [66.0, 1.0], [73.0, 2.0], [90.0, 9.0]])
points = numpy.round(numpy.vstack([normal, strange]), 4)
forests = [IsolationForest(n_estimators=100, max_samples=256, random_state=seed).fit(points) for seed in range(10)]
scores = numpy.mean([-forest.score_samples(points) for forest in forests], axis=0)
print(json.dumps({
    "sklearn": sklearn.__version__,
    "points": points.tolist(),
    "scores": [round(float(score), 5) for score in scores],
}))
