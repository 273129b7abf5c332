/* Decoded pixels of any size as the model's input: the rules and the arithmetic of the project's ingest and of Pillow,
 * on which it relies. */

/* From 128 on, the border is a light background. */
const LIGHT = 128;
/* Bits of a filter's weights after the point. Source: PRECISION_BITS in Pillow's src/libImaging/Resample.c. */
const WEIGHT_BITS = 22;

/* An image of `channels` bytes for each pixel: grey, or red, green and blue. */
class Picture {
  constructor(width, height, channels, bytes = new Uint8Array(width * height * channels)) {
    Object.assign(this, {width, height, channels, bytes});
  }
}

/* RGBA as of a canvas: transparent parts on white; grey as a luma.
 * Source: Pillow's src/libImaging/AlphaComposite.c, over an opaque white; L24 in Convert.c (ITU-R 601-2). */
function convertPicture(rgba, width, height, channels) {
  const picture = new Picture(width, height, channels), {bytes} = picture;
  const blend = (value, alpha) => {
    const sum = value * alpha + 255 * (255 - alpha) + 128;
    return ((sum >> 8) + sum) >> 8;
  };
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    const alpha = rgba[from + 3];
    const [red, green, blue] = [blend(rgba[from], alpha), blend(rgba[from + 1], alpha), blend(rgba[from + 2], alpha)];
    if (channels === 1) {
      bytes[to++] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
    } else {
      bytes[to++] = red;
      bytes[to++] = green;
      bytes[to++] = blue;
    }
  }
  return picture;
}

/* The median at the border, of each channel. */
function measureBorder({width, height, channels, bytes}) {
  const places = [];
  for (let x = 0; x < width; x++) places.push(x, (height - 1) * width + x);
  for (let y = 0; y < height; y++) places.push(y * width, y * width + width - 1);
  return Array.from({length: channels}, (_, channel) => {
    const values = Uint8Array.from(places, (place) => bytes[place * channels + channel]).sort();
    return (values[values.length / 2 - 1] + values[values.length / 2]) / 2; // their number is even
  });
}

/* Keys' cubic with a = -0.5. Source: bicubic_filter in Pillow's src/libImaging/Resample.c. */
function weighBicubic(distance) {
  const x = Math.abs(distance);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

/* For each of `newSize` values, from which of `size` values on it is computed, and their weights in fixed point.
 * Source: precompute_coeffs and normalize_coeffs_8bpc in Pillow's src/libImaging/Resample.c. */
function computeWeights(size, newSize) {
  const scale = size / newSize, filterScale = Math.max(scale, 1), support = 2 * filterScale;
  return Array.from({length: newSize}, (_, index) => {
    const center = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(size, Math.trunc(center + support + 0.5));
    const inverse = 1 / filterScale;
    const weights = Array.from({length: end - first}, (_, x) => weighBicubic((x + first - center + 0.5) * inverse));
    const sum = weights.reduce((one, other) => one + other, 0);
    const whole = weights.map((weight) => {
      const scaled = (sum === 0 ? weight : weight / sum) * 2 ** WEIGHT_BITS;
      return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    });
    return {first, weights: whole};
  });
}

/* Resample lines of values: value i of a line is at its start + i * step. */
function resampleLines(from, starts, step, to, newStarts, newStep, size, newSize) {
  const all = computeWeights(size, newSize), half = 2 ** (WEIGHT_BITS - 1), one = 2 ** WEIGHT_BITS;
  starts.forEach((start, line) => {
    all.forEach(({first, weights}, index) => {
      let sum = half, place = start + first * step;
      for (const weight of weights) {
        sum += weight * from[place];
        place += step;
      }
      to[newStarts[line] + index * newStep] = Math.max(0, Math.min(255, Math.floor(sum / one)));
    });
  });
}

/* Resample the rows. */
function resizeRows(picture, width) {
  const {channels, height} = picture, wide = new Picture(width, height, channels);
  const [starts, newStarts] = [picture.width, width].map((size) => listStarts(height, size * channels, channels));
  resampleLines(picture.bytes, starts, channels, wide.bytes, newStarts, channels, picture.width, width);
  return wide;
}

/* Resample the columns. */
function resizeColumns(picture, height) {
  const {channels, width} = picture, high = new Picture(width, height, channels);
  const starts = listStarts(width, channels, channels), step = width * channels;
  resampleLines(picture.bytes, starts, step, high.bytes, starts, step, picture.height, height);
  return high;
}

/* Where the lines of each channel start, so many at this distance. */
function listStarts(count, distance, channels) {
  const find = (index) => Math.floor(index / channels) * distance + (index % channels);
  return Array.from({length: count * channels}, (_, index) => find(index));
}

/* The picture in this size, rounded to bytes after its rows and after its columns.
 * Source of which are first: ImagingResampleInner in Pillow's src/libImaging/Resample.c, as of Pillow 13. */
function resizePicture(picture, width, height) {
  const [fewerColumns, fewerRows] = [picture.width - width, picture.height - height];
  const isRowsLast = fewerRows > 0 && fewerRows > 2 * fewerColumns;
  let result = picture;
  if (isRowsLast) result = resizeColumns(result, height);
  if (width !== result.width) result = resizeRows(result, width);
  if (height !== result.height) result = resizeColumns(result, height);
  return result;
}

/* The picture in this size with its proportions kept, in the middle of what surrounds it.
 * Source: fit_image of the project's image_decoding.py, and contain and pad of Pillow's src/PIL/ImageOps.py. */
function fitPicture(picture, width, height) {
  const border = measureBorder(picture).map(Math.floor);
  const scale = Math.min(width / picture.width, height / picture.height);
  let fitted = picture;
  if (roundHalfToEven(scale * Math.min(picture.width, picture.height)) === 0) {
    const enlarge = (size) => Math.max(1, roundHalfToEven(scale * size));
    fitted = resizePicture(picture, enlarge(picture.width), enlarge(picture.height));
  }
  let [newWidth, newHeight] = [width, height];
  const ratio = fitted.width / fitted.height;
  if (ratio > width / height) newHeight = roundHalfToEven((fitted.height / fitted.width) * width);
  if (ratio < width / height) newWidth = roundHalfToEven((fitted.width / fitted.height) * height);
  fitted = resizePicture(fitted, newWidth, newHeight);
  const padded = new Picture(width, height, picture.channels);
  for (let place = 0; place < padded.bytes.length; place++) padded.bytes[place] = border[place % picture.channels];
  const [left, top] = [roundHalfToEven((width - newWidth) / 2), roundHalfToEven((height - newHeight) / 2)];
  const rowBytes = newWidth * picture.channels;
  for (let row = 0; row < newHeight; row++) {
    const bytes = fitted.bytes.subarray(row * rowBytes, (row + 1) * rowBytes);
    padded.bytes.set(bytes, ((top + row) * width + left) * picture.channels);
  }
  return padded;
}

/* The model's input of decoded pixels, and whether they were inverted for their background.
 * rgba: as `getImageData` gives it. imageShape: [H, W] or [H, W, 3]. background: "dark", "light" or null, the model's. */
function prepareImage(rgba, width, height, imageShape, background) {
  const picture = convertPicture(rgba, width, height, imageShape.length === 3 ? 3 : 1);
  const found = background && measureBorder(picture)[0] >= LIGHT ? "light" : "dark";
  const wasInverted = background !== null && found !== background;
  if (wasInverted) picture.bytes.forEach((value, place) => (picture.bytes[place] = 255 - value));
  return {pixels: fitPicture(picture, imageShape[1], imageShape[0]).bytes, wasInverted};
}
