"""The same training as bench_train.lua with torch, sklearn or keras: bench_train.py LIBRARY [THREADS]. Prints the library's name with its version
and microseconds a step (the best epoch), or nothing when the library is not there."""
import os
import sys
import time

library, threads = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "1"
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = threads
ROWS, BATCH, EPOCHS = 10000, 32, 7
STEPS = -(-ROWS // BATCH)

try:
    import numpy as np
    x = np.random.default_rng(1).normal(size=(ROWS, 30)).astype(np.float32)
    y = (x[:, :5].sum(axis=1) > 0).astype(np.float32)
    times = []
    if library == "torch":
        import torch
        torch.set_num_threads(int(threads))
        name = "PyTorch " + torch.__version__
        model = torch.nn.Sequential(torch.nn.Linear(30, 128), torch.nn.ReLU(), torch.nn.Linear(128, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
        optimizer, loss = torch.optim.Adam(model.parameters(), lr=1e-3), torch.nn.BCEWithLogitsLoss()
        tx, ty = torch.from_numpy(x), torch.from_numpy(y)[:, None]
        for _ in range(EPOCHS):
            begin = time.perf_counter()
            order = torch.randperm(ROWS)
            sx, sy = tx[order], ty[order]
            for i in range(0, ROWS, BATCH):
                optimizer.zero_grad(set_to_none=True)
                loss(model(sx[i:i + BATCH]), sy[i:i + BATCH]).backward()
                optimizer.step()
            times.append(time.perf_counter() - begin)
    elif library == "sklearn":
        import sklearn
        from sklearn.neural_network import MLPClassifier
        name = "scikit-learn " + sklearn.__version__
        model = MLPClassifier((128, 64), batch_size=BATCH)
        for _ in range(EPOCHS):
            begin = time.perf_counter()
            model.partial_fit(x, y, classes=[0, 1])
            times.append(time.perf_counter() - begin)
    else:
        import keras
        name = f"Keras {keras.__version__} ({keras.backend.backend()})"
        layers = keras.layers
        model = keras.Sequential([layers.Dense(128, "relu"), layers.Dense(64, "relu"), layers.Dense(1, "sigmoid")])
        model.compile(optimizer="adam", loss="binary_crossentropy")
        for _ in range(EPOCHS):
            begin = time.perf_counter()
            model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
            times.append(time.perf_counter() - begin)
except ImportError:
    sys.exit(0)
print(f"{name}\t{min(times) * 1e6 / STEPS:.2f}")
