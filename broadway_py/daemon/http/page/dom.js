// Describes elements, and changes what the page shows into what is described. What stays the same is not touched, so a selection,
// the focus, open details and what somebody has typed stay as they are.

const SVG = "http://www.w3.org/2000/svg";
// The user changes these. They are set when the element is made, and not again.
const INITIAL = new Set(["open", "value"]);

// Returns the description of an element. Children that are null, false or "" are left out. The attribute `key` says which element
// it is among its siblings; an attribute `onclick` or the like is a function; `style` is an object.
export function h(tag, attributes = {}, ...children) {
  return { tag, key: attributes.key, attributes, children: children.flat(Infinity).filter(isShown).map(toChild) };
}

function isShown(child) {
  return child !== null && child !== undefined && child !== false && child !== "";
}

function toChild(child) {
  return typeof child === "object" ? child : String(child);
}

// Makes the children of `parent` what `wanted`, a list of descriptions, says.
export function show(parent, ...wanted) {
  const children = wanted.flat(Infinity).filter(isShown).map(toChild);
  const keys = new Set(children.map((one) => one.key).filter((key) => key !== undefined));
  const keyed = new Map();
  for (const node of [...parent.childNodes]) {
    if (node.broadwayKey === undefined) continue;
    if (keys.has(node.broadwayKey)) keyed.set(node.broadwayKey, node);
    else node.remove();
  }
  let next = parent.firstChild;
  for (const one of children) {
    let node = matching(one, next, keyed);
    if (node === next && node !== null) {
      next = next.nextSibling;
    } else {
      node ??= made(one, parent);
      parent.insertBefore(node, next);
    }
    if (typeof one === "string") setText(node, one);
    else update(node, one);
  }
  while (next !== null) {
    const gone = next;
    next = next.nextSibling;
    gone.remove();
  }
}

function matching(one, next, keyed) {
  if (typeof one === "string") return next !== null && next.nodeType === Node.TEXT_NODE ? next : null;
  if (one.key !== undefined) {
    const node = keyed.get(one.key);
    return node !== undefined && node.localName === one.tag ? node : null;
  }
  const fits = next !== null && next.nodeType === Node.ELEMENT_NODE && next.localName === one.tag && next.broadwayKey === undefined;
  return fits ? next : null;
}

function made(one, parent) {
  if (typeof one === "string") return document.createTextNode("");
  const isDrawing = one.tag === "svg" || parent.namespaceURI === SVG;
  const node = isDrawing ? document.createElementNS(SVG, one.tag) : document.createElement(one.tag);
  node.broadwayKey = one.key;
  for (const name of INITIAL) {
    if (isShown(one.attributes[name])) node.setAttribute(name, one.attributes[name]);
  }
  return node;
}

function update(node, one) {
  const before = node.broadwayAttributes ?? {};
  for (const [name, value] of Object.entries(one.attributes)) {
    if (name === "key" || INITIAL.has(name)) continue;
    if (name === "style") setStyle(node, value, before.style ?? {});
    else if (name.startsWith("on")) node[name] = value;
    else setAttribute(node, name, value);
  }
  for (const name of Object.keys(before)) {
    if (name in one.attributes || name === "key" || INITIAL.has(name)) continue;
    if (name.startsWith("on")) node[name] = null;
    else if (name !== "style") node.removeAttribute(name);
  }
  node.broadwayAttributes = one.attributes;
  show(node, one.children);
}

function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

function setStyle(node, style, before) {
  for (const [name, value] of Object.entries(style)) {
    if (before[name] !== value) node.style.setProperty(name, value);
  }
}

// A browser moves the ends of a selection that are in a changed text to its beginning. They are put back.
function setText(node, text) {
  if (node.data === text) return;
  const selection = document.getSelection();
  const { anchorNode, anchorOffset, focusNode, focusOffset } = selection;
  const isSelected = !selection.isCollapsed && (anchorNode === node || focusNode === node);
  node.data = text;
  if (!isSelected) return;
  const within = (end, offset) => (end === node ? Math.min(offset, text.length) : offset);
  selection.setBaseAndExtent(anchorNode, within(anchorNode, anchorOffset), focusNode, within(focusNode, focusOffset));
}
