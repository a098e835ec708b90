"""The shape of the many MNIST notebooks with BatchNormalization and a global pooling, with only the imports changed."""

import os

import numpy as np

import cnnlite as keras
from cnnlite import callbacks, datasets, layers, models, optimizers, utils

samples = int(os.environ.get("SAMPLES", "60000"))
epochs = int(os.environ.get("EPOCHS", "10"))
utils.set_random_seed(3)

(x_train, y_train), (x_test, y_test) = datasets.mnist.load_data()
x_train = x_train[:samples].reshape((-1, 28, 28, 1)).astype("float32") / 255.0
x_test = x_test[:1000].reshape((-1, 28, 28, 1)).astype("float32") / 255.0
y_train = utils.to_categorical(y_train[:samples], num_classes=10)
y_test = utils.to_categorical(y_test[:1000], num_classes=10)

model = models.Sequential(name="mnist_bn")
model.add(keras.Input(shape=(28, 28, 1)))
model.add(layers.Conv2D(16, (3, 3), padding="same", use_bias=False, kernel_initializer="he_normal"))
model.add(layers.BatchNormalization(momentum=0.8))
model.add(layers.Activation("relu"))
model.add(layers.MaxPool2D(pool_size=2, strides=2))
model.add(layers.Conv2D(32, (3, 3), padding="same", use_bias=False))
model.add(layers.BatchNormalization(momentum=0.8))
model.add(layers.ReLU())
model.add(layers.MaxPool2D(pool_size=2))
model.add(layers.Conv2D(64, (3, 3), padding="same"))
model.add(layers.BatchNormalization(momentum=0.8))
model.add(layers.ReLU())
model.add(layers.GlobalMaxPool2D())
model.add(layers.Dropout(0.2))
model.add(layers.Dense(10, activation="softmax"))

model.compile(
    optimizer=optimizers.Adam(learning_rate=0.003),
    loss=keras.losses.CategoricalCrossentropy(),
    metrics=["accuracy"],
)
stop = callbacks.EarlyStopping(monitor="val_loss", patience=3, restore_best_weights=True)
history = model.fit(
    x_train, y_train, batch_size=64, epochs=epochs, validation_split=0.1, callbacks=[stop], verbose=2
)

predictions = np.argmax(model.predict(x_test), axis=-1)
print("Agreement:", np.mean(predictions == np.argmax(y_test, axis=-1)))

results = model.evaluate(x_test, y_test, return_dict=True)
print("Test accuracy:", results["accuracy"])
