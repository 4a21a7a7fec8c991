"use strict";
// Tables that sort by a click on a heading. Without scripts they stay as they were written.
const number = (text) => {
  const found = text.replace(/(\d),(?=\d{3})/g, "$1").replace("−", "-").match(/-?\d+(\.\d+)?(e[+-]?\d+)?/i);
  return found ? Number(found[0]) : NaN;
};
const compare = (a, b) => {
  const [x, y] = [number(a), number(b)];
  if (!isNaN(x) && !isNaN(y)) return x - y || a.localeCompare(b);
  if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;
  return a.localeCompare(b);
};
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending" || !head.hasAttribute("aria-sort");
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const text = (row) => row.cells[column].textContent;
      const rows = [...body.rows].sort((a, b) => (up ? 1 : -1) * compare(text(a), text(b)));
      body.append(...rows);
    });
  });
}

// Figures that can be explored. Their library stands beside the page and is read at the first use.
const library = document.currentScript.dataset.library;
let loading;
const load = () =>
  (loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = library;
    script.onload = resolve;
    script.onerror = () => reject(new Error(`${library} is missing beside this page.`));
    document.head.append(script);
  }));
for (const data of library ? document.querySelectorAll("script.panels") : []) {
  const figure = data.parentElement;
  const image = figure.querySelector(".picture");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "explore";
  button.textContent = "Explore";
  figure.querySelector("figcaption").append(button);
  let plots;
  button.addEventListener("click", async () => {
    try {
      await load();
    } catch (error) {
      button.replaceWith(error.message);
      return;
    }
    const show = !plots || plots.hidden;
    if (!plots) {
      plots = document.createElement("div");
      plots.className = "plots";
      image.after(plots);
      for (const item of JSON.parse(data.textContent)) {
        const place = document.createElement("div");
        plots.append(place);
        await Bokeh.embed.embed_item(item, place);
      }
    }
    plots.hidden = !show;
    image.hidden = show;
    button.textContent = show ? "Show the picture" : "Explore";
  });
}
