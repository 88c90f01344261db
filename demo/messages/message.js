// The page's message: one paragraph, moved to the place beside the control that it is about. Its text is set as text, so
// that a file's name cannot become markup.
for (const old of document.querySelectorAll(".ear-message")) old.remove(); // of this tab, drawn before and hidden since
const line = document.createElement("p");
line.className = "ear-message";
line.setAttribute("role", "alert");

function tell() {
  const { text = "", mood = "", at = "generate" } = props.value || {};
  const place = document.querySelector(`.ear-message-place[data-at="${at}"]`) || element;
  if (line.parentElement !== place) place.append(line);
  line.dataset.mood = mood;
  line.textContent = text;
  document.dispatchEvent(new CustomEvent("page:message", { detail: { text, mood } }));
}
watch("value", tell);
tell();
