// Small pictures to choose one from. Python's half is gallery.py.

export default function ({ data, parentElement, setTriggerValue }) {
  if (!data) return;
  const root = parentElement.querySelector(".nin-gallery") ?? newRoot(parentElement);
  root.choose = (number) => setTriggerValue("click", number);
  const { strip, labels, selected } = data;
  while (root.children.length > labels.length) root.lastChild.remove();
  while (root.children.length < labels.length) root.append(newButton(root));
  labels.forEach((label, number) => {
    const button = root.children[number];
    button.title = label;
    button.setAttribute("aria-label", label);
    button.setAttribute("aria-pressed", number === selected);
    const { style } = button.firstChild;
    style.backgroundImage = `url(${strip})`;
    style.backgroundSize = `${labels.length * 100}% 100%`;
    style.backgroundPosition = labels.length > 1 ? `${(100 * number) / (labels.length - 1)}% 0` : "0 0";
  });
}

function newRoot(parent) {
  const root = document.createElement("div");
  root.className = "nin-gallery";
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Pictures");
  parent.append(root);
  return root;
}

function newButton(root) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(document.createElement("span"));
  button.addEventListener("click", () => root.choose([...root.children].indexOf(button)));
  return button;
}
