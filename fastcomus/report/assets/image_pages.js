"use strict";
// Pages of images with the masks of every iteration, and one image large.

document.addEventListener("DOMContentLoaded", () => {
  const { run, element, chip } = fastcomus;
  const list = document.getElementById("pictures");
  if (!list) return;
  const byId = (id) => document.getElementById(id);
  const folder = (number) => `pictures/${String(Math.floor(number / 1000)).padStart(3, "0")}/${String(number).padStart(6, "0")}`;

  // -- data, a file at a time -----------------------------------------------------------------------------------

  const loading = new Map();
  const loadFile = (index) => {
    if (!loading.has(index)) {
      loading.set(index, new Promise((done, failed) => {
        const script = element("script", { src: run.imageFiles[index] });
        script.addEventListener("load", () => done());
        script.addEventListener("error", () => failed(new Error(`${run.imageFiles[index]} is missing`)));
        document.head.append(script);
      }));
    }
    return loading.get(index);
  };
  const imageAt = async (place) => {
    await loadFile(Math.floor(place / run.imagesPerFile));
    return fastcomus.images[Math.floor(place / run.imagesPerFile)][place % run.imagesPerFile];
  };

  // -- one image ------------------------------------------------------------------------------------------------

  // `step` 0: the photograph alone; i + 1: with the mask of the i-th iteration.
  const layers = (image, step) => {
    const [width, height] = image.size;
    const photograph = element("img", { src: `${folder(image.number)}.jpg`, width, height, alt: image.name, loading: "lazy", decoding: "async" });
    if (step === 0 || image.labels[step - 1] === null) return [photograph];
    const mask = element("img", { src: `${folder(image.number)}-${run.iterations[step - 1]}.png`, alt: "", loading: "lazy", decoding: "async" });
    return [photograph, mask];
  };
  const stepTitle = (step) => (step === 0 ? "photograph" : `iteration ${run.iterations[step - 1]}`);
  const stepChips = (image, step) => {
    if (step === 0) return [];
    const labels = image.labels[step - 1];
    if (labels === null) return ["no mask"];
    return labels.length ? labels.map(chip) : ["no object"];
  };

  const picture = (image, place) => {
    const strip = element("div", { class: "strip" });
    for (let step = 0; step <= run.iterations.length; step++) {
      const open = element("button", { type: "button", class: "frame", "aria-label": `Enlarge ${image.name}, ${stepTitle(step)}` }, ...layers(image, step));
      open.addEventListener("click", () => openViewer(place, step));
      const caption = element("figcaption", {}, element("strong", {}, stepTitle(step)), ...stepChips(image, step));
      strip.append(element("figure", {}, open, caption));
    }
    return element("li", {}, element("h3", {}, image.name), strip);
  };

  // -- pages ----------------------------------------------------------------------------------------------------

  let places = [...Array(run.images).keys()]; // those that the search leaves
  let page = 0;
  const pages = () => Math.max(1, Math.ceil(places.length / run.imagesPerPage));

  const showPage = async () => {
    const wanted = places.slice(page * run.imagesPerPage, (page + 1) * run.imagesPerPage);
    const images = await Promise.all(wanted.map(imageAt));
    list.replaceChildren(...images.map((image, i) => picture(image, wanted[i])));
    byId("page-state").textContent = places.length ? `Page ${page + 1} of ${pages()}, ${places.length} images` : "No such image";
    byId("page-before").disabled = page === 0;
    byId("page-after").disabled = page + 1 >= pages();
  };
  const turn = async (by) => {
    page = Math.min(Math.max(page + by, 0), pages() - 1);
    await showPage();
    byId("images").scrollIntoView();
  };
  byId("page-before").addEventListener("click", () => turn(-1));
  byId("page-after").addEventListener("click", () => turn(1));

  const search = async () => {
    const name = byId("image-name").value.trim().toLowerCase();
    const cluster = byId("image-cluster").value;
    await Promise.all(run.imageFiles.map((_, index) => loadFile(index)));
    const fits = (image) =>
      image.name.toLowerCase().includes(name) &&
      (cluster === "" || image.labels.some((labels) => labels?.includes(Number(cluster))));
    places = fastcomus.images.flat().flatMap((image, place) => (fits(image) ? [place] : []));
    page = 0;
    await showPage();
  };
  let typing = 0;
  byId("image-name").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(search, 200);
  });
  byId("image-cluster").addEventListener("change", search);
  byId("image-cluster").addEventListener("focus", () => {
    const select = byId("image-cluster");
    const chosen = select.value;
    const options = [...Array(run.clusters).keys()].map((cluster) => element("option", { value: cluster }, fastcomus.labelOf(cluster)));
    select.replaceChildren(element("option", { value: "" }, "all"), ...options);
    select.value = chosen;
  });
  byId("image-tools").addEventListener("submit", (event) => event.preventDefault());
  const setOpacity = () => document.body.style.setProperty("--masks", Number(byId("mask-opacity").value) / 100);
  byId("mask-opacity").addEventListener("input", setOpacity);
  setOpacity();

  // -- one image large ------------------------------------------------------------------------------------------

  const viewer = byId("viewer");
  const slider = byId("viewer-iteration");
  slider.max = run.iterations.length;
  let viewed = 0;

  const showViewed = async () => {
    const image = await imageAt(viewed);
    const step = Number(slider.value);
    byId("viewer-title").textContent = image.name;
    byId("viewer-step").textContent = stepTitle(step);
    slider.setAttribute("aria-valuetext", stepTitle(step));
    byId("viewer-stage").style.setProperty("--ratio", image.size[0] / image.size[1]);
    byId("viewer-stage").replaceChildren(...layers(image, step));
    byId("viewer-clusters").replaceChildren(...stepChips(image, step));
    byId("viewer-before").disabled = viewed === 0;
    byId("viewer-after").disabled = viewed + 1 >= run.images;
  };
  const openViewer = async (place, step) => {
    viewed = place;
    slider.value = step;
    await showViewed();
    if (!viewer.open) viewer.showModal();
    slider.focus();
  };
  slider.addEventListener("input", showViewed);
  byId("viewer-before").addEventListener("click", () => { viewed -= 1; showViewed(); });
  byId("viewer-after").addEventListener("click", () => { viewed += 1; showViewed(); });
  byId("viewer-close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });

  document.addEventListener("click", (event) => {
    const sample = event.target.closest("[data-picture]");
    if (!sample) return;
    event.preventDefault();
    openViewer(Number(sample.dataset.picture), run.iterations.length);
  });

  // The first page is drawn when it comes near.
  const near = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    near.disconnect();
    showPage();
  }, { rootMargin: "800px" });
  near.observe(list);
});
