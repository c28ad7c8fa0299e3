// Search in the sample: every word must stand in a row, in the row's title, texts, flags or status.
(() => {
  const box = document.getElementById("search");
  if (!box) return;
  const status = document.getElementById("status");
  const found = document.getElementById("found");
  const more = document.getElementById("more");
  const rows = [...document.querySelectorAll("#sample-rows .row")];
  const words = rows.map((row) => row.textContent.toLowerCase());
  const step = 20;
  let shown = step;
  const show = () => {
    const wanted = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let matches = 0;
    rows.forEach((row, index) => {
      const fits = wanted.every((word) => words[index].includes(word)) &&
        (!status.value || row.dataset.status === status.value || ` ${row.dataset.flags} `.includes(` ${status.value} `));
      if (fits) matches += 1;
      row.hidden = !fits || matches > shown;
    });
    found.textContent = `${matches.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
    more.hidden = matches <= shown;
  };
  const restart = () => { shown = step; show(); };
  box.addEventListener("input", restart);
  status.addEventListener("change", restart);
  more.addEventListener("click", () => { shown += step; show(); });
  show();
})();
