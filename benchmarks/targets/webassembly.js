// Answers images with classifier.c as a WebAssembly module, in a browser or in Node:
// node webassembly.js MODULE IMAGES PIXEL_BYTES CLASS_COUNT SCRATCH_BYTES > ANSWERS

const PAGE_BYTES = 65536; // of WebAssembly's memory

async function answerImages(module, images, pixelBytes, classCount, scratchBytes) {
  const { instance } = await WebAssembly.instantiate(module);
  const { memory, classifier_predict, __heap_base } = instance.exports;
  const pixels = __heap_base.value, probabilities = pixels + pixelBytes, scratch = probabilities + classCount;
  const missingBytes = scratch + scratchBytes - memory.buffer.byteLength;
  if (missingBytes > 0) memory.grow(Math.ceil(missingBytes / PAGE_BYTES));
  const bytes = new Uint8Array(memory.buffer);
  const answers = new Uint8Array((images.length / pixelBytes) * classCount);
  for (let image = 0; image * pixelBytes < images.length; image++) {
    bytes.set(images.subarray(image * pixelBytes, (image + 1) * pixelBytes), pixels);
    classifier_predict(pixels, probabilities, scratch);
    answers.set(bytes.subarray(probabilities, scratch), image * classCount);
  }
  return answers;
}

if (typeof process !== "undefined") {
  const { readFileSync, writeSync } = require("fs");
  const [module, images, ...sizes] = process.argv.slice(2);
  answerImages(readFileSync(module), readFileSync(images), ...sizes.map(Number)).then((answers) => {
    for (let written = 0; written < answers.length; ) written += writeSync(1, answers, written);
  });
}
