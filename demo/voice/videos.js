// Gradio's sound input refuses a file whose type is not audio, and says so with a list of types. The server takes the sound
// out of any video: so videos are handed to the input as sound.
(() => {
  const isVideo = (file) => file.type.startsWith("video/");
  const asSound = (file) => isVideo(file) ? new File([file], file.name, { type: file.type.replace("video/", "audio/") }) : file;
  const inputOf = (target) => target.closest?.("#voice")?.querySelector("input[type=file]");
  const hand = (input, files) => {
    const data = new DataTransfer();
    for (const file of files) data.items.add(asSound(file));
    input.files = data.files;
  };

  document.addEventListener("click", (event) => { // the dialog shall offer videos
    const input = inputOf(event.target);
    if (input && !input.accept.includes("video/")) input.accept += ",video/*";
  }, true);
  document.addEventListener("change", (event) => {
    const input = inputOf(event.target);
    if (input && input === event.target && [...input.files].some(isVideo)) hand(input, [...input.files]);
  }, true);
  document.addEventListener("drop", (event) => {
    const input = inputOf(event.target), files = [...(event.dataTransfer?.files || [])];
    if (!input || !files.some(isVideo)) return;
    event.preventDefault();
    event.stopPropagation();
    event.target.dispatchEvent(new DragEvent("dragleave", { bubbles: true }));
    hand(input, files);
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }, true);
})();
