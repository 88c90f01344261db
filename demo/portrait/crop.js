// The face crop: a square over the portrait, moved by dragging or arrow keys, resized by the slider, the wheel or + and -.
// Where the picture has several faces, a click on another one lets it speak.
// value: {box: [left, top, side]} in the portrait's pixels; picture: see `demo.portrait.shown`, set by the server.
const root = element.querySelector(".ear-crop");
const canvas = root.querySelector("canvas"), context = canvas.getContext("2d");
const zoom = root.querySelector("input"), note = root.querySelector(".ear-crop-note");
const image = new Image();
let about = null, box = null;

watch("picture", () => {
  about = props.picture;
  root.hidden = !about || !about.url;
  if (root.hidden) { props.value = null; document.dispatchEvent(new CustomEvent("portrait:gone")); return; }
  note.textContent = about.note;
  root.open = about.note !== ""; // something is to be chosen, or known
  note.dataset.mood = about.faces.length ? "" : "bad";
  image.onload = () => { box = [...about.box]; changed(false); };
  image.src = about.url;
});

// As the server takes it: no larger than the room there is, and moved into it.
const limits = () => { const [left, top, right, bottom] = about.room; const high = Math.min(right - left, bottom - top); return [Math.min(about.least, high), high]; };
function changed(byUser) {
  const [low, high] = limits(), [left, top, right, bottom] = about.room;
  if (byUser) {
    const side = Math.min(Math.max(box[2], low), high), x = box[0] + (box[2] - side) / 2, y = box[1] + (box[2] - side) / 2;
    box = [Math.max(Math.min(x, right - side), left), Math.max(Math.min(y, bottom - side), top), side];
  }
  zoom.value = high > low ? Math.log(box[2] / low) / Math.log(high / low) : 1;
  props.value = byUser ? { box } : null;
  draw();
  canvas.dispatchEvent(new CustomEvent("portrait:crop", { bubbles: true, detail: { paint } }));
}

function frame() { // scale and offset of the portrait inside the little canvas
  const scale = Math.min(canvas.width / about.width, canvas.height / about.height);
  return [scale, (canvas.width - about.width * scale) / 2, (canvas.height - about.height * scale) / 2];
}
function draw() {
  const [scale, dx, dy] = frame();
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.globalAlpha = 0.4;
  context.drawImage(image, dx, dy, about.width * scale, about.height * scale);
  context.globalAlpha = 1;
  const [x, y, side] = [dx + box[0] * scale, dy + box[1] * scale, box[2] * scale];
  context.save();
  context.beginPath(); context.rect(x, y, side, side); context.clip();
  context.drawImage(image, dx, dy, about.width * scale, about.height * scale);
  context.restore();
  context.lineWidth = 2; context.strokeStyle = "#fff"; context.strokeRect(x, y, side, side);
  context.lineWidth = 1; context.strokeStyle = "rgba(0, 0, 0, 0.6)"; context.strokeRect(x - 1.5, y - 1.5, side + 3, side + 3);
  if (about.faces.length > 1) about.faces.forEach((face, i) => drawFace(i + 1, face.map((value, j) => (j % 2 ? dy : dx) + value * scale)));
}
function drawFace(number, [left, top, right, bottom]) {
  const speaks = number === about.number;
  context.lineWidth = speaks ? 3 : 2;
  context.strokeStyle = context.fillStyle = speaks ? "#ea580c" : "#ffffff";
  context.strokeRect(left, top, right - left, bottom - top);
  context.fillRect(left, top - 15, 15, 15);
  context.fillStyle = speaks ? "#ffffff" : "#17181b";
  context.font = "600 12px sans-serif";
  context.fillText(String(number), left + 4, top - 3.5);
}
// The face under a point of the portrait, counted from 1; 0 where there is none.
const faceAt = (x, y) => 1 + about.faces.findIndex(([left, top, right, bottom]) => x >= left && x <= right && y >= top && y <= bottom);
function choose(number) {
  if (number >= 1 && number <= about.faces.length && number !== about.number) trigger("select", { number });
}
function inPortrait(event) {
  const shown = canvas.getBoundingClientRect(), [scale, dx, dy] = frame();
  const fit = Math.min(shown.width / canvas.width, shown.height / canvas.height); // object-fit: contain
  const left = shown.left + (shown.width - canvas.width * fit) / 2, top = shown.top + (shown.height - canvas.height * fit) / 2;
  return [((event.clientX - left) / fit - dx) / scale, ((event.clientY - top) / fit - dy) / scale];
}

// The crop as the model will see it: what lies outside the picture repeats its edge.
function paint(target, size) {
  const scale = size / box[2], kx = image.naturalWidth / about.width, ky = image.naturalHeight / about.height;
  const x0 = Math.max(0, -box[0]) * scale, y0 = Math.max(0, -box[1]) * scale;
  const x1 = (Math.min(about.width, box[0] + box[2]) - box[0]) * scale, y1 = (Math.min(about.height, box[1] + box[2]) - box[1]) * scale;
  const sx = Math.max(0, box[0]) * kx, sy = Math.max(0, box[1]) * ky, sw = ((x1 - x0) / scale) * kx, sh = ((y1 - y0) / scale) * ky;
  target.clearRect(0, 0, size, size);
  if (sw <= 0 || sh <= 0) return;
  target.drawImage(image, sx, sy, sw, sh, x0, y0, x1 - x0, y1 - y0);
  if (x0 > 0) target.drawImage(image, 0, sy, 1, sh, 0, y0, x0, y1 - y0);
  if (x1 < size) target.drawImage(image, image.naturalWidth - 1, sy, 1, sh, x1, y0, size - x1, y1 - y0);
  if (y0 >= 1) target.drawImage(target.canvas, 0, Math.ceil(y0), size, 1, 0, 0, size, Math.ceil(y0));
  if (y1 <= size - 1) target.drawImage(target.canvas, 0, Math.floor(y1) - 1, size, 1, 0, Math.floor(y1), size, size - Math.floor(y1));
}

function resize(factor) {
  const side = box[2] * factor;
  box = [box[0] + (box[2] - side) / 2, box[1] + (box[2] - side) / 2, side];
  changed(true);
}
let grip = null;
canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); grip = [...inPortrait(event), ...box]; });
canvas.addEventListener("pointermove", (event) => {
  if (!grip) return;
  const [x, y] = inPortrait(event), step = [x - grip[0], y - grip[1]];
  if (!grip.moved && Math.hypot(...step) * frame()[0] < 4) return; // a click, so far
  grip.moved = true;
  box = [grip[2] + step[0], grip[3] + step[1], grip[4]];
  changed(true);
});
canvas.addEventListener("pointerup", (event) => { if (grip && !grip.moved) choose(faceAt(...inPortrait(event))); grip = null; });
canvas.addEventListener("pointercancel", () => { grip = null; });
canvas.addEventListener("wheel", (event) => { event.preventDefault(); resize(event.deltaY > 0 ? 1.04 : 1 / 1.04); }, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const step = box[2] * (event.shiftKey ? 0.1 : 0.02);
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (moves[event.key]) { box = [box[0] + moves[event.key][0], box[1] + moves[event.key][1], box[2]]; changed(true); }
  else if (event.key === "+" || event.key === "=") resize(1 / 1.04);
  else if (event.key === "-") resize(1.04);
  else if (/^[1-9]$/.test(event.key) && about.faces.length > 1) choose(Number(event.key));
  else return;
  event.preventDefault();
});
zoom.addEventListener("input", () => { const [low, high] = limits(); resize(low * (high / low) ** Number(zoom.value) / box[2]); });
root.querySelector(".ear-crop-reset").addEventListener("click", () => { box = [...about.box]; changed(false); });
