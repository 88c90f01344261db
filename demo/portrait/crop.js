// The face crop: a square over the portrait, moved by dragging or arrow keys, resized by the slider, the wheel or + and -.
// value: {box: [left, top, side]} in the portrait's pixels; picture: {url, width, height, box, note}, set by the server.
const root = element.querySelector(".ear-crop");
const canvas = root.querySelector("canvas"), context = canvas.getContext("2d");
const zoom = root.querySelector("input"), note = root.querySelector(".ear-crop-note");
const image = new Image();
let about = null, box = null;

watch("picture", () => {
  about = props.picture;
  root.hidden = !about || !about.url;
  if (root.hidden) { props.value = null; return; }
  note.textContent = about.note || "";
  root.open = !about.found;
  note.dataset.mood = about.found ? "" : "bad";
  image.onload = () => { box = [...about.box]; changed(false); };
  image.src = about.url;
});

const limits = () => [48, 1.6 * Math.max(about.width, about.height)];
function changed(byUser) {
  const [low, high] = limits();
  const side = Math.min(Math.max(box[2], low), high);
  const centre = [box[0] + box[2] / 2, box[1] + box[2] / 2];
  centre[0] = Math.min(Math.max(centre[0], 0), about.width);
  centre[1] = Math.min(Math.max(centre[1], 0), about.height);
  box = byUser ? [centre[0] - side / 2, centre[1] - side / 2, side] : box;
  zoom.value = Math.log(box[2] / low) / Math.log(high / low);
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
canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); grip = [event.clientX, event.clientY, ...box]; });
canvas.addEventListener("pointermove", (event) => {
  if (!grip) return;
  const unit = canvas.width / canvas.getBoundingClientRect().width / frame()[0];
  box = [grip[2] + (event.clientX - grip[0]) * unit, grip[3] + (event.clientY - grip[1]) * unit, grip[4]];
  changed(true);
});
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { grip = null; });
canvas.addEventListener("wheel", (event) => { event.preventDefault(); resize(event.deltaY > 0 ? 1.04 : 1 / 1.04); }, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const step = box[2] * (event.shiftKey ? 0.1 : 0.02);
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (moves[event.key]) { box = [box[0] + moves[event.key][0], box[1] + moves[event.key][1], box[2]]; changed(true); }
  else if (event.key === "+" || event.key === "=") resize(1 / 1.04);
  else if (event.key === "-") resize(1.04);
  else return;
  event.preventDefault();
});
zoom.addEventListener("input", () => { const [low, high] = limits(); resize(low * (high / low) ** Number(zoom.value) / box[2]); });
root.querySelector(".ear-crop-reset").addEventListener("click", () => { box = [...about.box]; changed(false); });
