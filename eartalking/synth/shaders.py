"""GLSL of the renderer: posing is shared by the colour, the surface and the correspondence pass."""

_POSE = """#version 330
in vec3 in_position;   // rest shape with the face units applied, head heights
in vec3 in_normal;
in vec2 in_uv;
in vec4 in_material;   // head weight, eye (-1 left, 1 right, 0 none), gloss, shade (negative: inside the mouth)
in float in_group;
uniform mat3 head_rotation;
uniform vec3 head_offset;
uniform vec3 pivot;
uniform mat3 eye_rotation;
uniform vec3 eye_centres[2];
uniform vec3 camera;       // x and y of the optical axis, distance to the plane z = 0
uniform float focal;       // 1 / tan(fov / 2)

vec4 to_clip(vec3 p) {
    float depth = camera.z - p.z;
    // y is flipped: row 0 of the frame buffer is the top of the picture
    return vec4((p.x - camera.x) * focal, -(p.y - camera.y) * focal, (depth - 2.0) * 0.5 * depth / 6.0, depth);
}

vec3 pose(vec3 p, mat3 head, vec3 offset, mat3 eye) {
    if (in_material.y != 0.0) {
        vec3 centre = in_material.y < 0.0 ? eye_centres[0] : eye_centres[1];
        p = centre + eye * (p - centre);
    }
    return mix(p, pivot + head * (p - pivot) + offset, in_material.x);
}
"""

COLOUR_VERTEX = (
    _POSE
    + """
uniform float mouth_light;
out vec2 uv;
out vec3 normal;
out vec2 surface;   // gloss, shade
void main() {
    vec3 p = pose(in_position, head_rotation, head_offset, eye_rotation);
    vec3 n = in_material.y != 0.0 ? eye_rotation * in_normal : in_normal;
    normal = mix(n, head_rotation * n, in_material.x);
    uv = in_uv;
    float shade = in_material.w < 0.0 ? -in_material.w * mouth_light : in_material.w;
    if (in_material.y != 0.0)   // the upper lid shades the eyeball
        shade *= 1.0 - 0.45 * smoothstep(0.1, 0.6, n.y);
    surface = vec2(in_material.z, shade);
    gl_Position = to_clip(p);
}
"""
)

_DEVELOP = """
uniform float vignette, frame_size;
// linear light to a pixel value; the camera's tone curve follows as a table on the CPU, which is cheaper than pow()
vec3 develop(vec3 linear) {
    vec2 from_centre = gl_FragCoord.xy / frame_size * 2.0 - 1.0;
    return sqrt(linear * (1.0 - vignette * dot(from_centre, from_centre)));
}
"""

COLOUR_FRAGMENT = (
    """#version 330
"""
    + _DEVELOP
    + """
in vec2 uv;
in vec3 normal;
in vec2 surface;
uniform sampler2D atlas;
uniform vec3 ambient_sky, ambient_ground;
uniform vec3 key_direction, key_colour, fill_direction, fill_colour, rim_colour;
uniform vec3 key_half;
uniform float wrap;
out vec4 colour;
void main() {
    vec4 texel = texture(atlas, uv);
    if (texel.a < 0.5) discard;
    vec3 n = normalize(normal);
    float key = max(dot(n, key_direction) + wrap, 0.0) / (1.0 + wrap);
    float fill = max(dot(n, fill_direction), 0.0);
    vec3 light = mix(ambient_ground, ambient_sky, 0.5 + 0.5 * n.y) + key * key_colour + fill * fill_colour;
    float edge = 1.0 - clamp(n.z, 0.0, 1.0);
    light += rim_colour * (edge * edge * edge);
    float shine = max(dot(n, key_half), 0.0);
    shine *= shine; shine *= shine; shine *= shine;   // ^8
    float gloss = surface.x;
    if (gloss > 0.9) {   // eyes: ^256, a small sharp highlight
        shine *= shine; shine *= shine; shine *= shine; shine *= shine; shine *= shine * 1.5;
    }
    vec3 linear = texel.rgb * texel.rgb * light * surface.y + key_colour * (gloss * shine * surface.y);
    colour = vec4(develop(linear), 1.0);
}
"""
)

BACKGROUND_VERTEX = """#version 330
in vec2 in_corner;
out vec2 position;
void main() { position = in_corner; gl_Position = vec4(in_corner, 0.9999, 1.0); }
"""

BACKGROUND_FRAGMENT = """#version 330
in vec2 position;
uniform sampler2D backdrop;
uniform float vignette;
out vec4 colour;
void main() {
    vec2 from_centre = position * position;
    vec3 value = texture(backdrop, position * 0.5 + 0.5).rgb;
    colour = vec4(value * sqrt(1.0 - vignette * (from_centre.x + from_centre.y)), 1.0);
}
"""

# The supersampled picture, averaged down by the texture unit.
SHRINK_FRAGMENT = """#version 330
in vec2 position;
uniform sampler2D picture;
out vec4 colour;
void main() { colour = texture(picture, position * 0.5 + 0.5); }
"""

# The portrait's surface: distance from the camera and the group of the nearest surface, 0 for background.
SURFACE_VERTEX = (
    _POSE
    + """
out vec2 uv;
out vec2 surface;
void main() {
    gl_Position = to_clip(pose(in_position, head_rotation, head_offset, eye_rotation));
    uv = in_uv;
    surface = vec2(gl_Position.w, in_group);
}
"""
)

SURFACE_FRAGMENT = """#version 330
in vec2 uv;
in vec2 surface;
uniform sampler2D atlas;
out vec2 value;
void main() {
    if (texture(atlas, uv).a < 0.5) discard;
    value = surface;
}
"""

# Which point of the resting head a pixel shows, and of which triangle (counted from 1).
POINT_VERTEX = (
    _POSE
    + """
in vec3 in_reference;   // the same vertex at rest
out vec2 uv;
out vec3 rest;
void main() {
    gl_Position = to_clip(pose(in_position, head_rotation, head_offset, eye_rotation));
    uv = in_uv;
    rest = in_reference;
}
"""
)

POINT_FRAGMENT = """#version 330
in vec2 uv;
in vec3 rest;
uniform sampler2D atlas;
out vec4 value;
void main() {
    if (texture(atlas, uv).a < 0.5) discard;
    value = vec4(rest, float(gl_PrimitiveID + 1));
}
"""

CORRESPONDENCE_VERTEX = (
    _POSE
    + """
in vec3 in_reference;   // the same vertex, face units of the portrait
uniform mat3 reference_head_rotation;
uniform vec3 reference_head_offset;
uniform mat3 reference_eye_rotation;
out vec2 uv;
out vec3 reference;    // clip x, y, w in the portrait
out float group;
void main() {
    gl_Position = to_clip(pose(in_position, head_rotation, head_offset, eye_rotation));
    reference = to_clip(
        pose(in_reference, reference_head_rotation, reference_head_offset, reference_eye_rotation)).xyw;
    uv = in_uv;
    group = in_group;
}
"""
)

CORRESPONDENCE_FRAGMENT = """#version 330
in vec2 uv;
in vec3 reference;
in float group;
uniform sampler2D atlas;
uniform sampler2D portrait_surface;
uniform float tolerance;
uniform float frame_size;
out vec4 value;
bool shows(vec2 position, vec2 offset) {
    vec2 seen = texture(portrait_surface, position * 0.5 + 0.5 + offset * 0.5 / frame_size).xy;
    return abs(seen.y - group) < 0.5 && abs(seen.x - reference.z) < tolerance;
}
void main() {
    if (texture(atlas, uv).a < 0.5) discard;
    vec2 position = reference.xy / reference.z;
    bool inside = max(abs(position.x), abs(position.y)) < 1.0;
    // the four pixels around the point: at a border of two surfaces either may be the one that the point is on
    bool same = shows(position, vec2(-1, -1)) || shows(position, vec2(1, -1))
             || shows(position, vec2(-1, 1)) || shows(position, vec2(1, 1));
    value = vec4(position, inside && same ? 1.0 : 0.0, 1.0);
}
"""

CORRESPONDENCE_BACKGROUND_FRAGMENT = """#version 330
in vec2 position;
uniform sampler2D portrait_surface;
out vec4 value;
void main() {
    float group = texture(portrait_surface, position * 0.5 + 0.5).y;   // background is group 0
    value = vec4(position, group < 0.5 ? 1.0 : 0.0, 0.0);
}
"""
