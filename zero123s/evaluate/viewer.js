// Shows one glb (base64 in #mesh) on #viewer without any library: drag turns, wheel zooms, keys or buttons choose the look.
(function () {
  "use strict";
  const canvas = document.getElementById("viewer");
  const gl = canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true });
  if (!gl) { canvas.replaceWith("This browser offers no WebGL 2; open the mesh file in any glTF viewer."); return; }
  const text = document.getElementById("mesh").textContent.trim();
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const jsonLength = view.getUint32(12, true);
  const gltf = JSON.parse(new TextDecoder().decode(bytes.subarray(20, 20 + jsonLength)));
  const binStart = 20 + jsonLength + 8;
  const KINDS = { SCALAR: 1, VEC2: 2, VEC3: 3 };

  function accessor(index) {
    const a = gltf.accessors[index], b = gltf.bufferViews[a.bufferView];
    const start = binStart + (b.byteOffset || 0), n = a.count * KINDS[a.type];
    const copy = bytes.slice(start, start + 4 * n).buffer;
    return a.componentType === 5125 ? new Uint32Array(copy) : new Float32Array(copy);
  }

  const primitive = gltf.meshes[0].primitives[0], attributes = primitive.attributes;
  const positions = accessor(attributes.POSITION), indices = accessor(primitive.indices);
  const low = [0, 1, 2].map((k) => Infinity), high = low.map((v) => -v);
  for (let i = 0; i < positions.length; i++) {
    low[i % 3] = Math.min(low[i % 3], positions[i]); high[i % 3] = Math.max(high[i % 3], positions[i]);
  }
  const center = low.map((v, k) => (v + high[k]) / 2);
  const radius = 0.5 * Math.hypot(...low.map((v, k) => high[k] - v)) || 1;

  const vertexSource = `#version 300 es
    in vec3 position, normal, color; in vec2 uv; uniform mat4 camera; uniform mat3 turn;
    out vec3 n, c; out vec2 t;
    void main() { n = turn * normal; c = color; t = uv; gl_Position = camera * vec4(position, 1.0); }`;
  const fragmentSource = `#version 300 es
    precision highp float; in vec3 n, c; in vec2 t; uniform sampler2D picture; uniform int look; uniform bool textured;
    out vec4 result;
    void main() {
      vec3 m = normalize(n), base = textured ? texture(picture, t).rgb : pow(c, vec3(1.0 / 2.2));
      float light = 0.45 + 0.55 * max(dot(m, normalize(vec3(-0.35, 0.5, 0.8))), 0.0);
      vec3 shown = look == 0 ? base : look == 1 ? base * light : look == 2 ? vec3(0.75) * light : 0.5 * m + 0.5;
      result = vec4(shown, 1.0);
    }`;
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertexSource], [gl.FRAGMENT_SHADER, fragmentSource]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source); gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program); gl.useProgram(program);

  function attribute(name, data, size, fallback) {
    const place = gl.getAttribLocation(program, name);
    if (place < 0) return;
    if (!data) { gl.vertexAttrib3fv(place, fallback); return; }
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(place); gl.vertexAttribPointer(place, size, gl.FLOAT, false, 0, 0);
  }
  const optional = (name) => (name in attributes ? accessor(attributes[name]) : null);
  attribute("position", positions, 3);
  attribute("normal", optional("NORMAL"), 3, [0, 0, 1]);
  attribute("color", optional("COLOR_0"), 3, [0.45, 0.45, 0.45]);
  attribute("uv", optional("TEXCOORD_0"), 2, [0, 0, 0]);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, indices, gl.STATIC_DRAW);

  let textured = false;
  if (gltf.images && "TEXCOORD_0" in attributes) {
    const b = gltf.bufferViews[gltf.images[0].bufferView], start = binStart + (b.byteOffset || 0);
    const blob = new Blob([bytes.slice(start, start + b.byteLength)], { type: gltf.images[0].mimeType });
    createImageBitmap(blob, { colorSpaceConversion: "none" }).then((image) => {
      gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, image);
      gl.generateMipmap(gl.TEXTURE_2D);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
      textured = true; draw();
    });
  }

  let azimuth = 0.5, elevation = 0.25, zoom = 1, look = 0;
  function draw() {
    const width = (canvas.width = canvas.clientWidth * devicePixelRatio);
    const height = (canvas.height = canvas.clientHeight * devicePixelRatio);
    gl.viewport(0, 0, width, height); gl.enable(gl.DEPTH_TEST);
    gl.clearColor(1, 1, 1, 1); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const ca = Math.cos(azimuth), sa = Math.sin(azimuth), ce = Math.cos(elevation), se = Math.sin(elevation);
    const right = [ca, 0, -sa], up = [-se * sa, ce, -se * ca], back = [ce * sa, se, ce * ca];
    const f = 1 / Math.tan(0.175), distance = (3 / Math.sin(0.175) / 2.7) * radius * zoom, aspect = width / height;
    const near = Math.max(distance - 2 * radius, 0.01 * radius), far = distance + 2 * radius;
    const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    const rows = [right, up, back].map((axis) => [...axis, -dot(axis, center)]);
    rows[2][3] -= distance;
    const a = -(far + near) / (far - near), b = (-2 * far * near) / (far - near);
    const x = rows[0].map((v) => (v * f) / Math.max(aspect, 1)), y = rows[1].map((v) => v * f * Math.min(aspect, 1));
    const z = rows[2].map((v, k) => a * v + (k === 3 ? b : 0)), w = rows[2].map((v) => -v);
    const matrix = [0, 1, 2, 3].flatMap((k) => [x[k], y[k], z[k], w[k]]);
    const turn = [0, 1, 2].flatMap((k) => [right[k], up[k], back[k]]);
    gl.uniformMatrix4fv(gl.getUniformLocation(program, "camera"), false, matrix);
    gl.uniformMatrix3fv(gl.getUniformLocation(program, "turn"), false, turn);
    gl.uniform1i(gl.getUniformLocation(program, "look"), look);
    gl.uniform1i(gl.getUniformLocation(program, "textured"), textured ? 1 : 0);
    gl.drawElements(gl.TRIANGLES, indices.length, gl.UNSIGNED_INT, 0);
  }
  let held = false;
  canvas.addEventListener("pointerdown", (e) => { held = true; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointerup", () => { held = false; });
  canvas.addEventListener("pointermove", (e) => {
    if (!held) return;
    azimuth -= e.movementX * 0.01;
    elevation = Math.max(-1.55, Math.min(1.55, elevation + e.movementY * 0.01));
    draw();
  });
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    zoom = Math.max(0.2, Math.min(4, zoom * Math.exp(e.deltaY * 0.001)));
    draw();
  }, { passive: false });
  document.querySelectorAll("[data-look]").forEach((button) => {
    button.addEventListener("click", () => { look = Number(button.dataset.look); draw(); });
  });
  window.addEventListener("resize", draw);
  draw();
})();
