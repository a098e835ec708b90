"""Keras on TensorFlow, in its fastest way: Keras's own methods, or a tf.function with or without XLA."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import keras
import tensorflow as tf

from benchmarks.nets import net_of, stack
from benchmarks.sides.data import batch
from benchmarks.sides.ways import fastest

tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["OMP_NUM_THREADS"]))


def prepare(job, layout, threads):
    keras.backend.clear_session()
    net = net_of(job)
    model = build(net)
    x, y = batch(net.input_shape, job["batch"])
    ways = training_ways(model, x, y) if job["kind"] == "train" else inference_ways(model, x)
    run, way = fastest({note: lambda run=run: run for note, run in ways.items()})
    return run, sum(int(tf.size(weight)) for weight in model.trainable_weights), way


def training_ways(model, x, y):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    tensors = tf.constant(x), tf.constant(y)

    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return value

    plain, xla = tf.function(step), tf.function(step, jit_compile=True)
    return {
        "train_on_batch": lambda: model.train_on_batch(x, y),
        "tf.function": lambda: float(plain(*tensors)),
        "tf.function with XLA": lambda: float(xla(*tensors)),
    }


def inference_ways(model, x):
    tensor = tf.constant(x)
    plain, xla = tf.function(model), tf.function(model, jit_compile=True)
    return {
        "model(x)": lambda: model(tensor).numpy(),
        "predict_on_batch": lambda: model.predict_on_batch(x),
        "tf.function": lambda: plain(tensor).numpy(),
        "tf.function with XLA": lambda: xla(tensor).numpy(),
    }


def build(net):
    return keras.Sequential([keras.Input(net.input_shape), *stack(net, keras.layers)])
