"""The shape of the tutorial on image classification with a CNN, with only the imports changed."""

import os

import numpy as np

import cnnlite as keras
from cnnlite import datasets, layers, models

samples = int(os.environ.get("SAMPLES", "60000"))
epochs = int(os.environ.get("EPOCHS", "10"))
keras.utils.set_random_seed(2)

(train_images, train_labels), (test_images, test_labels) = datasets.mnist.load_data()
train_images, train_labels = train_images[:samples], train_labels[:samples]
test_images, test_labels = test_images[:1000], test_labels[:1000]

# Normalize pixel values to be between 0 and 1
train_images, test_images = train_images[..., np.newaxis] / 255.0, test_images[..., np.newaxis] / 255.0

model = models.Sequential()
model.add(layers.Conv2D(32, (3, 3), activation="relu", input_shape=(28, 28, 1)))
model.add(layers.MaxPooling2D((2, 2)))
model.add(layers.Conv2D(64, (3, 3), activation="relu"))
model.add(layers.MaxPooling2D((2, 2)))
model.add(layers.Conv2D(64, (3, 3), activation="relu"))
model.summary()

model.add(layers.Flatten())
model.add(layers.Dense(64, activation="relu"))
model.add(layers.Dense(10))
model.summary()

model.compile(
    optimizer="adam",
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)

history = model.fit(
    train_images, train_labels, epochs=epochs, validation_data=(test_images, test_labels)
)
print("Epochs:", len(history.history["accuracy"]), len(history.history["val_accuracy"]))

test_loss, test_acc = model.evaluate(test_images, test_labels, verbose=2)
print("Test accuracy:", test_acc)
