/* The int8 network in whole numbers: each byte of an answer is the integer reference's and the C file's. */

const decodeBase64 = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/* The nearest whole number, halves to the even one, of magnitudes below 2^51: at 1.5 * 2^52, a double has no fractions,
 * and IEEE 754 rounds a sum in this way. */
const roundHalfToEven = (number) => number + 6755399441055744 - 6755399441055744;

/* A convolution with relu or not, and the pooling after it. A dense layer is one with a kernel of one pixel. */
class Layer {
  constructor(described) {
    Object.assign(this, described);
    this.weights = new Int8Array(decodeBase64(described.weights).buffer); // by unit, row and column of the kernel, depth
  }

  apply(inputs) {
    const [rows, columns, units] = this.outputShape, [, width, depth] = this.inputShape, {pool} = this;
    const outputs = new Uint8Array(rows * columns * units);
    let place = 0;
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        for (let unit = 0; unit < units; unit++) {
          // Outputs grow with sums: the largest of a pooling's window is that of the largest sum.
          let largest = -Infinity;
          for (let y = row * pool; y < (row + 1) * pool; y++) {
            for (let x = column * pool; x < (column + 1) * pool; x++) {
              largest = Math.max(largest, this.addProducts(inputs, (y * width + x) * depth, unit));
            }
          }
          outputs[place++] = this.rescale(largest + this.biases[unit], unit);
        }
      }
    }
    return outputs;
  }

  /* The products of the inputs under the kernel, whose first is at `start`, and a unit's weights. */
  addProducts(inputs, start, unit) {
    const [, width, depth] = this.inputShape, {kernel, weights} = this, length = kernel * depth;
    let sum = 0, place = unit * kernel * length;
    for (let row = 0; row < kernel; row++) {
      const first = start + row * width * depth;
      for (let index = first; index < first + length; index++) {
        sum += inputs[index] * weights[place++];
      }
    }
    return sum;
  }

  /* The output 0..255 that a unit's sum stands for. A product of two float32 is exact in a double, and rounded once. */
  rescale(sum, unit) {
    const steps = roundHalfToEven(Math.fround(Math.fround(sum) * this.factors[unit]));
    return Math.min(255, Math.max(this.lowest, this.outputZero + steps));
  }
}

class Network {
  constructor({layers, exponentials}) {
    this.layers = layers.map((layer) => new Layer(layer));
    this.exponentials = exponentials; // e^-d of logits that are d steps below the largest, in fixed point
  }

  /* The probability of each class in 256ths, at most 255, as a Uint8Array.
   * pixels: a Uint8Array of the image's rows, one after the other; in colour red, green and blue of each pixel. */
  predict(pixels) {
    const logits = this.layers.reduce((values, layer) => layer.apply(values), pixels);
    const largest = Math.max(...logits);
    const powers = Array.from(logits, (logit) => this.exponentials[largest - logit] ?? 0);
    const sum = powers.reduce((one, other) => one + other), half = Math.floor(sum / 2);
    return Uint8Array.from(powers, (power) => Math.min(255, Math.floor((256 * power + half) / sum)));
  }
}
