"use strict";
// Tables sort by a button in each heading, which the keyboard reaches; without scripts they are as they came.
for (const table of document.querySelectorAll("table.sort")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
      const order = (a, b) => {
        const [x, y] = [key(a), key(b)], difference = x - y;
        return Number.isNaN(difference) ? x.localeCompare(y, undefined, { numeric: true }) : difference;
      };
      body.append(...[...body.rows].sort((a, b) => (down ? order(b, a) : order(a, b))));
    });
  });
}
// A slider shows one level of several; without scripts, and on paper, all are there.
for (const group of document.querySelectorAll(".levels")) {
  const levels = [...group.children], slider = document.createElement("input");
  if (!levels.length) continue;
  Object.assign(slider, { type: "range", min: 0, max: levels.length - 1, value: levels.length - 1 });
  slider.setAttribute("aria-label", group.dataset.label);
  const show = () => {
    levels.forEach((one, number) => (one.hidden = number !== +slider.value));
    slider.setAttribute("aria-valuetext", levels[slider.value].querySelector("h4").textContent);
  };
  slider.addEventListener("input", show);
  group.prepend(slider);
  show();
}
// On paper everything is open.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach((one) => (one.open = true));
});
addEventListener("afterprint", () => closed.forEach((one) => (one.open = false)));
