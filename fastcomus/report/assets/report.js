"use strict";
// The page's scripts share this object; those under data/ fill in plots, run and images.
window.fastcomus = { plots: {}, images: [], views: {} };

// -- plots --------------------------------------------------------------------------------------------------------

fastcomus.drawPlot = async function (element) {
  const item = fastcomus.plots[element.id];
  if (!item || element.dataset.drawn) return;
  element.dataset.drawn = "starting";
  fastcomus.views[element.id] = await Bokeh.embed.embed_item(item, element);
  element.dataset.drawn = "done";
  if (element.id === "map") fastcomus.recolourMap();
};

const findMapSource = () => Bokeh.documents.map((one) => one.get_model_by_name("objects")).find(Boolean);

// The map as corrections and names now have it.
fastcomus.recolourMap = function () {
  const source = fastcomus.live && fastcomus.objects && findMapSource();
  if (!source) return;
  const rows = Array.from(source.data.row);
  const cluster = rows.map((row) => fastcomus.objects.cluster[row]);
  const colour = cluster.map((one) => fastcomus.run.colours[one] ?? "#9a9fa6");
  source.data = { ...source.data, cluster, colour, label: rows.map(fastcomus.labelOfObject) };
};

fastcomus.openCluster = function (cluster) {
  const card = document.getElementById(`cluster-${cluster}`);
  document.querySelectorAll(".card.is-open").forEach((other) => other.classList.remove("is-open"));
  if (!card) return;
  card.classList.add("is-open");
  card.scrollIntoView({ block: "start" });
  card.focus({ preventScroll: true });
};

// Pointing at a cluster in the list shows its points on the map.
fastcomus.showOnMap = function (cluster) {
  const source = findMapSource();
  if (!source) return;
  const points = [...source.data.cluster.keys()].filter((i) => source.data.cluster[i] === cluster);
  source.selected.indices = cluster === null ? [] : points;
};

document.addEventListener("DOMContentLoaded", () => {
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) fastcomus.drawPlot(entry.target);
  }, { rootMargin: "400px" });
  document.querySelectorAll(".plot").forEach((plot) => seen.observe(plot));

  for (const link of document.querySelectorAll("[data-legend]")) {
    const cluster = Number(link.dataset.legend);
    for (const event of ["pointerenter", "focus"]) link.addEventListener(event, () => fastcomus.showOnMap(cluster));
    for (const event of ["pointerleave", "blur"]) link.addEventListener(event, () => fastcomus.showOnMap(null));
    link.addEventListener("click", (event) => {
      event.preventDefault();
      fastcomus.openCluster(cluster);
    });
  }
});

// -- small things that the other scripts use ------------------------------------------------------------------------

// An element with attributes and children; text is never read as HTML.
fastcomus.element = function (tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

// A coloured dot and what the cluster is called.
fastcomus.chip = function (cluster) {
  const dot = fastcomus.element("span", { class: "dot", style: `--colour: ${fastcomus.run.colours[cluster]}` });
  const label = fastcomus.element("span", { "data-label": cluster }, fastcomus.labelOf(cluster));
  return fastcomus.element("span", {}, dot, label);
};

// -- news -----------------------------------------------------------------------------------------------------------

// A page from disk may fetch nothing, but may load a script again. It learns so that the report was written anew.
document.addEventListener("DOMContentLoaded", () => {
  if (!fastcomus.run) return;
  const look = () => {
    if (document.hidden) return;
    const script = fastcomus.element("script", { src: `${fastcomus.run.newestScript}?${Date.now()}` });
    script.addEventListener("load", () => {
      script.remove();
      const { version, iterations } = fastcomus.newest;
      if (version === fastcomus.run.version) return;
      const more = iterations > fastcomus.run.iterations.length ? ` Iteration ${iterations - 1} has masks now.` : "";
      document.getElementById("news-text").textContent = `There is more to see.${more}`;
      document.getElementById("news").hidden = false;
    });
    script.addEventListener("error", () => script.remove());
    document.head.append(script);
  };
  setInterval(look, fastcomus.lookEveryMs ?? 15000);
  document.addEventListener("visibilitychange", look);
  document.getElementById("news-show").addEventListener("click", () => location.reload());
});
