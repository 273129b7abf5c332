/* The page: where images come from, and what is shown of the answers. */

const model = JSON.parse(document.getElementById("model").textContent);
const network = new Network(model);
const [HEIGHT, WIDTH] = model.imageShape;
/* As many as ingest takes (stages/lib/data/image_limits.py). */
const MAX_PIXELS = 2 ** 26;
/* Pixels of the pad's longer side: more than enough for any input, and whole multiples of most. */
const PAD_SIDE = 336;

const find = (id) => document.getElementById(id);
const make = (tag, text = "", named = {}) => Object.assign(document.createElement(tag), {textContent: text}, named);
const tell = (text) => (find("said").textContent = text);
const formatShare = (share) => `${(100 * share).toFixed(1)}%`;
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/* What other programs may call, from a console or a test. */
const classifier = {
  classNames: model.classNames,
  imageShape: model.imageShape,
  predict: (pixels) => network.predict(pixels),
  prepare: (rgba, width, height) => prepareImage(rgba, width, height, model.imageShape, model.background),
};
window.classifier = classifier;

/* --- answers --------------------------------------------------------------------------------------------------- */

const bars = model.classNames.map((name) => {
  const row = find("bars").insertRow(), bar = make("div", "", {className: "bar"});
  row.append(make("th", name, {scope: "row", className: "name", title: name}));
  row.insertCell().append(bar);
  return {row, bar, share: row.insertCell()};
});

function showAnswer(pixels, note) {
  const answers = network.predict(pixels), best = answers.indexOf(Math.max(...answers));
  bars.forEach(({row, bar, share}, id) => {
    row.classList.toggle("best", id === best);
    bar.style.width = `${(100 * answers[id]) / 256}%`;
    share.textContent = formatShare(answers[id] / 256);
  });
  find("answer-class").textContent = model.classNames[best];
  find("answer-share").textContent = formatShare(answers[best] / 256);
  find("problem").hidden = true;
  drawPixels(find("seen"), pixels);
  find("seen-note").textContent = `${WIDTH} × ${HEIGHT} pixels. ${note}`;
  return `${model.classNames[best]}, ${formatShare(answers[best] / 256)}`;
}

function showProblem(text) {
  find("problem").textContent = text;
  find("problem").hidden = false;
  tell("");
}

function drawPixels(canvas, pixels) {
  Object.assign(canvas, {width: WIDTH, height: HEIGHT});
  const image = new ImageData(WIDTH, HEIGHT), channels = pixels.length / (WIDTH * HEIGHT);
  image.data.forEach((_, place) => {
    const pixel = Math.floor(place / 4), channel = place % 4;
    image.data[place] = channel === 3 ? 255 : pixels[pixel * channels + Math.min(channel, channels - 1)];
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/* --- golden images ---------------------------------------------------------------------------------------------- */

function checkGolden() {
  const start = performance.now();
  let different = 0, bytes = 0;
  for (const {pixels, answer} of golden) {
    network.predict(pixels).forEach((value, id) => (different += value !== answer[id]));
    bytes += answer.length;
  }
  const each = (performance.now() - start) / golden.length, verdict = find("verdict");
  verdict.className = different ? "bad" : "good";
  verdict.textContent = different
    ? `✘ Do not trust this page: ${different} of ${bytes} bytes of the golden answers are others in this browser.`
    : `✔ Verified: ${count(golden.length, "golden image")}, all ${bytes} bytes of the answers as expected.`;
  find("foot").textContent =
    `An answer takes ${each.toFixed(each < 1 ? 2 : 1)} ms here. Nothing leaves this page` +
    (location.protocol === "file:" ? "." : " but to the server that it came from.");
}

const golden = model.golden.map(({pixels, answer, label}) => ({pixels: decodeBase64(pixels), answer, label}));

for (const {pixels, label} of golden) {
  const canvas = make("canvas"), name = model.classNames[label];
  const button = make("button", "", {type: "button", title: name});
  canvas.setAttribute("aria-hidden", "true");
  button.setAttribute("aria-label", `Example: ${name}`);
  drawPixels(canvas, pixels);
  button.append(canvas);
  button.addEventListener("click", () => {
    drawOnPad(canvas);
    latest++;
    tell(showAnswer(pixels, `A golden image of the class ${name}.`));
    if (isServed) canvas.toBlob((blob) => askServer(blob, pixels));
  });
  find("examples").append(button);
}

/* --- pictures ---------------------------------------------------------------------------------------------------- */

let latest = 0; // of several pictures that are being decoded, only the latest is answered

function describeOwn({width, height, wasInverted}) {
  const resized = width === WIDTH && height === HEIGHT ? "" : `Resized from ${width} × ${height}. `;
  return `${resized}${wasInverted ? "Inverted, for its background is not that of the training images." : ""}`;
}

/* Decode as ingest does as far as a browser can: upright by its EXIF data, its colours as the file has them. */
async function decodePicture(blob) {
  const bitmap = await createImageBitmap(blob, {
    imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none",
  });
  const {width, height} = bitmap;
  if (width * height > MAX_PIXELS) throw new RangeError(`It has more than ${MAX_PIXELS.toLocaleString("en")} pixels.`);
  const canvas = make("canvas", "", {width, height});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  return {canvas, width, height, ...classifier.prepare(rgba, width, height)};
}

async function classifyPicture(blob) {
  const number = ++latest;
  tell("");
  let own = null, reason = "This browser cannot read it as a picture: save it as PNG or JPEG.";
  try {
    own = await decodePicture(blob);
  } catch (error) {
    if (error instanceof RangeError) reason = error.message;
  }
  if (number !== latest) return;
  clearPad();
  if (own) {
    drawOnPad(own.canvas);
    const answer = showAnswer(own.pixels, describeOwn(own));
    if (!isServed) tell(answer);
  } else if (!isServed) {
    showProblem(reason);
  }
  if (isServed) await askServer(blob, own?.pixels);
}

find("choose").addEventListener("click", () => find("file").click());
find("file").addEventListener("change", ({target}) => {
  if (target.files.length) classifyPicture(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find(({type}) => type.startsWith("image/"));
  if (file) classifyPicture(file);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  find("pad").classList.add("over");
});
document.addEventListener("dragleave", () => find("pad").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  find("pad").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) classifyPicture(file);
  else showProblem("Drop a file: a link would have to be fetched, and this page fetches nothing.");
});

/* --- camera ------------------------------------------------------------------------------------------------------ */

const video = find("video");

function closeCamera() {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  showCamera(false);
}

function showCamera(isOn) {
  video.hidden = find("shoot").hidden = !isOn;
  pad.hidden = isOn;
  find("camera").textContent = isOn ? "Close the camera" : "Use the camera";
}

find("camera").hidden = !navigator.mediaDevices?.getUserMedia;
find("camera").addEventListener("click", async () => {
  if (video.srcObject) {
    closeCamera();
    return;
  }
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
    await video.play();
    showCamera(true);
    find("shoot").focus();
  } catch {
    closeCamera();
    showProblem("There is no camera that this page may use.");
  }
});
find("shoot").addEventListener("click", () => {
  const frame = make("canvas", "", {width: video.videoWidth, height: video.videoHeight});
  frame.getContext("2d").drawImage(video, 0, 0);
  closeCamera();
  find("camera").focus();
  frame.toBlob(classifyPicture);
});

/* --- drawing ----------------------------------------------------------------------------------------------------- */

const pad = find("pad");
const sketch = pad.getContext("2d", {willReadFrequently: true});
const isLight = model.background !== "dark"; // a colour model has no background of its own: white is paper's
let pen = null; // where it is, in pixels of the pad
let isDown = false;
let isOfPicture = false; // the pad shows a picture, which the next stroke replaces

function clearPad() {
  sketch.fillStyle = isLight ? "white" : "black";
  sketch.fillRect(0, 0, pad.width, pad.height);
  isOfPicture = false;
}

function drawOnPad(image) {
  const scale = Math.min(pad.width / image.width, pad.height / image.height);
  const [width, height] = [image.width * scale, image.height * scale];
  sketch.clearRect(0, 0, pad.width, pad.height); // what surrounds a picture is not of it
  sketch.imageSmoothingEnabled = scale < 1;
  sketch.drawImage(image, (pad.width - width) / 2, (pad.height - height) / 2, width, height);
  isOfPicture = true;
}

function moveTo(place) {
  if (isDown) {
    if (isOfPicture) clearPad();
    const from = pen ?? place;
    sketch.strokeStyle = model.background === null ? find("colour").value : isLight ? "black" : "white";
    sketch.lineWidth = (Math.min(pad.width, pad.height) * find("pen").value) / 100;
    sketch.lineCap = sketch.lineJoin = "round";
    sketch.beginPath();
    sketch.moveTo(from.x, from.y);
    sketch.lineTo(place.x, place.y);
    sketch.stroke();
    answerSoon();
  }
  pen = place;
}

let isWaiting = false;

function answerSoon() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    isWaiting = false;
    answerDrawing();
  });
}

/* A drawing has the model's background, whatever it covers of it. */
function answerDrawing() {
  latest++;
  const {data} = sketch.getImageData(0, 0, pad.width, pad.height);
  const drawn = prepareImage(data, pad.width, pad.height, model.imageShape, model.background);
  const note = drawn.wasInverted ? "Inverted, for its border is mostly drawn over." : "Your drawing.";
  return {answer: showAnswer(drawn.pixels, note), drawn};
}

function finishStroke() {
  isDown = false;
  const {answer, drawn} = answerDrawing();
  if (isServed) pad.toBlob((blob) => askServer(blob, drawn.pixels));
  else tell(answer);
}

function findPlace({clientX, clientY}) {
  const {left, top, width, height} = pad.getBoundingClientRect();
  return {x: ((clientX - left) * pad.width) / width, y: ((clientY - top) * pad.height) / height};
}

pad.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  pad.setPointerCapture(event.pointerId);
  isDown = true;
  pen = null;
  moveTo(findPlace(event));
});
pad.addEventListener("pointermove", (event) => {
  if (!isDown || !pad.hasPointerCapture(event.pointerId)) return;
  const events = event.getCoalescedEvents?.() ?? [];
  (events.length ? events : [event]).forEach((each) => moveTo(findPlace(each)));
});
for (const name of ["pointerup", "pointercancel"]) {
  pad.addEventListener(name, () => {
    if (isDown) finishStroke();
  });
}

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

pad.addEventListener("keydown", (event) => {
  const step = (event.shiftKey ? 1 : 3) * (PAD_SIDE / 100);
  if (event.key in ARROWS) {
    const [x, y] = ARROWS[event.key], from = pen ?? {x: pad.width / 2, y: pad.height / 2};
    const keep = (value, size) => Math.min(size, Math.max(0, value));
    moveTo({x: keep(from.x + x * step, pad.width), y: keep(from.y + y * step, pad.height)});
    if (!isDown) tell(`Pen at ${Math.round((100 * pen.x) / pad.width)}, ${Math.round((100 * pen.y) / pad.height)}`);
  } else if (event.key === " ") {
    if (isDown) {
      finishStroke();
    } else {
      isDown = true;
      moveTo(pen ?? {x: pad.width / 2, y: pad.height / 2});
      tell("Pen down");
    }
  } else if (event.key === "Delete" || event.key === "Backspace") {
    startAnew();
  } else {
    return;
  }
  event.preventDefault();
});
pad.addEventListener("blur", () => {
  if (isDown) finishStroke();
});

function startAnew() {
  isDown = false;
  pen = null;
  clearPad();
  answerDrawing();
  find("rows").replaceChildren();
  tell("Cleared");
}

find("clear").addEventListener("click", startAnew);
find("colour-label").hidden = model.background !== null;

/* --- every runtime: where `pipeline demo` serves the page -------------------------------------------------------- */

let isServed = false;

/* Have the project's own code decode the picture, and each runtime answer; ownPixels: as this page prepared it. */
async function askServer(blob, ownPixels) {
  const number = latest;
  const answered = await postPicture(blob);
  if (number !== latest) return;
  find("rows").replaceChildren();
  if (answered.problem) {
    showProblem(answered.problem);
    return;
  }
  const pixels = decodeBase64(answered.pixels);
  if (!ownPixels) {
    drawPixels(find("seen"), pixels);
    drawOnPad(find("seen"));
  }
  tell(showAnswer(pixels, describeServed(answered, pixels, ownPixels)));
  const own = Array.from(network.predict(pixels), (byte) => byte / 256);
  showRuntimes([...answered.rows, {file: "model_int8.tflite", runtime: "this page", probabilities: own}]);
}

async function postPicture(blob) {
  const headers = {"Content-Type": "application/octet-stream"};
  try {
    const response = await fetch("answers", {method: "POST", body: blob, headers});
    return await response.json();
  } catch {
    return {problem: "The server does not answer: is `pipeline demo` still running?"};
  }
}

function showRuntimes(rows) {
  const [{file, runtime, probabilities: first}] = rows;
  find("runtimes-note").textContent =
    "Each file of models/export in each of its runtimes, for the same pixels. " +
    `The last column compares each with ${file} in ${runtime}.`;
  find("rows").append(...rows.map((row) => makeRow(row, first)));
}

function makeRow({file, runtime, probabilities, reason}, first) {
  const row = make("tr");
  row.append(make("th", file, {scope: "row"}), make("td", runtime));
  if (!probabilities) {
    row.append(make("td", `not run: ${reason}`, {colSpan: 3}));
    return row;
  }
  const share = Math.max(...probabilities), name = model.classNames[probabilities.indexOf(share)];
  const difference = Math.max(...probabilities.map((probability, id) => Math.abs(probability - first[id])));
  const texts = [formatShare(share), difference.toPrecision(2)];
  row.append(make("td", name, {className: "name"}), ...texts.map((text) => make("td", text)));
  return row;
}

function describeServed({was_inverted: wasInverted}, pixels, ownPixels) {
  const inverted = wasInverted ? "Inverted, for its background is not that of the training images. " : "";
  if (!ownPixels) return `${inverted}Decoded by the project, for this browser cannot read it.`;
  const differences = pixels.map((value, place) => Math.abs(value - ownPixels[place])).filter(Boolean);
  const compared = differences.length
    ? `this browser gets others in ${differences.length} of ${pixels.length} bytes, by at most ${Math.max(...differences)}`
    : "this browser gets the same pixels";
  return `${inverted}Decoded by the project; ${compared}.`;
}

async function findServer() {
  if (!location.protocol.startsWith("http")) return;
  try {
    const response = await fetch("runtimes");
    isServed = response.ok && (await response.json()).runtimes.length > 0;
  } catch {
    // Another server: the page answers by itself.
  }
  find("runtimes").hidden = !isServed;
}

/* --- start ------------------------------------------------------------------------------------------------------- */

function start() {
  const kinds = {dark: "grey, light on dark", light: "grey, dark on light"};
  const scale = PAD_SIDE / Math.max(WIDTH, HEIGHT);
  Object.assign(pad, {width: Math.round(WIDTH * scale), height: Math.round(HEIGHT * scale)});
  find("about").textContent =
    `${model.classNames.length} classes. ${WIDTH} × ${HEIGHT} pixels, ${kinds[model.background] ?? "in colour"}.`;
  checkGolden();
  if (golden.length) {
    const [{pixels, label}] = golden;
    drawOnPad(find("examples").querySelector("canvas"));
    showAnswer(pixels, `A golden image of the class ${model.classNames[label]}.`);
  }
  findServer().then(() => document.documentElement.classList.add("ready"));
}

start();
