/* OVERLAY, OVERLAY_MAPPED and OVERLAY_WITH, by one of three kernel interfaces.
 *
 * 1. fsconfig "lowerdir+", one call per layer: Linux 6.8 (24e16e385f22), no limit on the length.
 * 2. fsconfig "lowerdir": any overlayfs, but its value is limited to 256 bytes (fs/fsopen.c).
 * 3. mount(2): 4096 bytes of options. It mounts on a path, so that happens in a private copy of the
 *    mount namespace, from which the mount is then cloned off.
 */
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "kernel.h"
#include "launch.h"
#include "user.h"

#define LAYERS_MAX      500  /* OVL_MAX_STACK */
#define OPTIONS_MAX     4096 /* one page: copy_mount_options() */
#define FSCONFIG_STRING 256

struct overlay {
    const char *lower;
    uint32_t lower_count;
    const char *upper;
    const char *work;
    struct field options; /* further options of overlayfs */
    bool is_volatile;
    bool is_mapped;
    const int *trees; /* the layers as mapped trees, instead of `lower`; or NULL */
};

struct options {
    size_t used;
    char text[OPTIONS_MAX];
};

static bool append(struct options *options, const char *text)
{
    size_t length = strlen(text);

    if (options->used + length >= sizeof(options->text))
        return false;
    memcpy(options->text + options->used, text, length + 1);
    options->used += length;
    return true;
}

/* mount(2) splits options at commas, overlayfs splits layers at colons; both accept a backslash escape. */
static bool append_escaped(struct options *options, const char *path)
{
    for (; *path; path++) {
        char piece[3] = {*path, 0, 0};

        if (*path == ',' || *path == ':') {
            piece[0] = '\\';
            piece[1] = *path;
        }
        if (!append(options, piece))
            return false;
    }
    return true;
}

/* Length of the longest common parent directory of all layers, with its slash. */
static size_t common_directory(const struct overlay *overlay)
{
    const char *layer = overlay->lower, *first = overlay->lower;
    const char *slash = strrchr(first, '/');
    size_t common = slash ? (size_t)(slash - first) + 1 : 0;

    for (uint32_t i = 1; i < overlay->lower_count; i++) {
        layer = plan_string_after(layer);
        while (common && strncmp(first, layer, common))
            for (common--; common && first[common - 1] != '/';)
                common--;
    }
    return common;
}

static bool append_lower(const struct overlay *overlay, size_t skip, bool escape, struct options *options)
{
    const char *layer = overlay->lower;

    for (uint32_t i = 0; i < overlay->lower_count; i++, layer = plan_string_after(layer)) {
        if (i && !append(options, ":"))
            return false;
        if (escape ? !append_escaped(options, layer + skip) : !append(options, layer + skip))
            return false;
    }
    return true;
}

static bool append_options(const struct overlay *overlay, struct options *options)
{
    const char *option = overlay->options.bytes;

    for (uint32_t i = 0; i < overlay->options.length; i++, option = plan_string_after(option))
        if (!append(options, ",") || !append(options, option))
            return false;
    return true;
}

static int configure_layers(int fs, const struct overlay *overlay)
{
    const char *layer = overlay->lower;
    int result = 0;

    for (uint32_t i = 0; result == 0 && i < overlay->lower_count; i++, layer = plan_string_after(layer))
        result = overlay->trees ? kernel_fsconfig_fd(fs, "lowerdir+", overlay->trees[i])
                                : kernel_fsconfig(fs, FSCONFIG_SET_STRING, "lowerdir+", layer);
    return result;
}

/* Sets the layers as one string; -E2BIG if only mount(2) can take it. */
static int configure_joined(int fs, const struct overlay *overlay)
{
    struct options options = {0};

    if (!append_lower(overlay, 0, false, &options) || options.used >= FSCONFIG_STRING)
        return -E2BIG;
    for (const char *layer = overlay->lower; *layer; layer++)
        if (*layer == ':' || *layer == ',')
            return -E2BIG;
    return kernel_fsconfig(fs, FSCONFIG_SET_STRING, "lowerdir", options.text);
}

static int mount_by_fsconfig(struct launch *launch, const struct overlay *overlay, bool joined)
{
    OWNED_FD fs = kernel_fsopen("overlay");
    int result = fs;

    launch->step = "overlay by fsconfig";
    if (result >= 0)
        result = joined ? configure_joined(fs, overlay) : configure_layers(fs, overlay);
    if (result == 0 && *overlay->upper)
        result = kernel_fsconfig(fs, FSCONFIG_SET_STRING, "upperdir", overlay->upper);
    if (result == 0 && *overlay->upper)
        result = kernel_fsconfig(fs, FSCONFIG_SET_STRING, "workdir", overlay->work);
    if (result == 0 && overlay->is_volatile)
        result = kernel_fsconfig(fs, FSCONFIG_SET_FLAG, "volatile", NULL);
    if (result == 0)
        result = mount_options(fs, &overlay->options, launch);
    if (result == 0)
        launch->step = "overlay by fsconfig";
    if (result == 0 && launch->label)
        result = kernel_fsconfig(fs, FSCONFIG_SET_STRING, "context", launch->label);
    if (result == 0)
        result = kernel_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL);
    if (result == 0)
        result = kernel_fsmount(fs, 0);
    if (result < 0 && fs >= 0)
        mount_reason(fs, launch);
    return result;
}

/* A copy of the mount namespace, from which nothing propagates. */
static int leave_for_private_mounts(void)
{
    struct mount_attr private = {.propagation = PH_MS_PRIVATE};

    if (unshare(CLONE_NEWNS) < 0)
        return -errno;
    return kernel_mount_setattr(-1, "/", AT_RECURSIVE, &private);
}

/* Mounts on /proc: it exists on every host, and in our own namespace nothing else uses it. */
static int mount_classically(struct launch *launch, const struct overlay *overlay)
{
    static struct options options;
    char directory[PATH_MAX];
    size_t common = common_directory(overlay);
    int result;

    launch->step = "overlay by mount";
    if (common >= sizeof(directory))
        return -ENAMETOOLONG;
    memcpy(directory, overlay->lower, common);
    directory[common] = 0;
    options.used = 0;
    if (!append(&options, "lowerdir=") || !append_lower(overlay, common, true, &options))
        return -E2BIG;
    if (*overlay->upper && (!append(&options, ",upperdir=") || !append_escaped(&options, overlay->upper) ||
                            !append(&options, ",workdir=") || !append_escaped(&options, overlay->work)))
        return -E2BIG;
    if (overlay->is_volatile && !append(&options, ",volatile"))
        return -E2BIG;
    if (!append_options(overlay, &options))
        return -E2BIG;
    /* Quoted, since a level may contain commas. */
    if (launch->label &&
        (!append(&options, ",context=\"") || !append(&options, launch->label) || !append(&options, "\"")))
        return -E2BIG;
    result = leave_for_private_mounts();
    if (result == 0 && common)
        result = kernel_result(chdir(directory));
    if (result == 0)
        result = kernel_mount("overlay", "/proc", "overlay", 0, options.text);
    return result == 0 ? kernel_open_tree(AT_FDCWD, "/proc", OPEN_TREE_CLONE) : result;
}

/* mount(2) would split an option at a comma. */
static bool options_are_sound(const struct overlay *overlay)
{
    const char *option = overlay->options.bytes;

    for (uint32_t i = 0; i < overlay->options.length; i++, option = plan_string_after(option))
        if (strchr(option, ','))
            return false;
    return true;
}

static bool layers_are_sound(const struct overlay *overlay)
{
    const char *layer = overlay->lower;

    /* Only some of the interfaces treat a backslash as an escape. */
    for (uint32_t i = 0; i < overlay->lower_count; i++, layer = plan_string_after(layer))
        if (*layer != '/' || strchr(layer, '\\'))
            return false;
    return overlay->lower_count && !strchr(overlay->upper, '\\') && !strchr(overlay->work, '\\');
}

/* overlayfs refuses a single layer without an upper one: binds that directory, read-only.
 */
static int bind_layer(const struct overlay *overlay)
{
    struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY, .propagation = PH_MS_PRIVATE};
    OWNED_FD tree = kernel_open_tree(AT_FDCWD, overlay->lower, OPEN_TREE_CLONE);
    int result = tree < 0 ? tree : overlay->is_mapped ? user_map_tree(tree) : 0;

    if (result == 0)
        result = kernel_mount_setattr(tree, "", AT_EMPTY_PATH, &read_only);
    return result < 0 ? result : fd_take(&tree);
}

/* EINVAL: the kernel lacks "lowerdir+"; E2BIG: too long for one string. */
static int mount_somehow(struct launch *launch, const struct overlay *overlay, uint64_t flags)
{
    int result = -EINVAL;

    if (!(flags & (PH_OP_OVERLAY_JOINED | PH_OP_OVERLAY_CLASSIC)))
        result = mount_by_fsconfig(launch, overlay, false);
    if (result == -EINVAL && !(flags & PH_OP_OVERLAY_CLASSIC))
        result = mount_by_fsconfig(launch, overlay, true);
    if (result == -EINVAL || result == -E2BIG)
        result = mount_classically(launch, overlay);
    return result;
}

static int map_layers(const struct overlay *overlay, int *trees)
{
    const char *layer = overlay->lower;
    int result = 0;

    for (uint32_t i = 0; result == 0 && i < overlay->lower_count; i++, layer = plan_string_after(layer)) {
        trees[i] = kernel_open_tree(AT_FDCWD, layer, OPEN_TREE_CLONE);
        result = trees[i] < 0 ? trees[i] : user_map_tree(trees[i]);
    }
    return result;
}

/* Returns to the host's mount namespace, in which the temporary mounts do not exist. */
static int mount_by_attached(struct launch *launch, const struct overlay *overlay, const int *trees,
                             uint64_t flags)
{
    const char *layer = overlay->lower;
    OWNED_FD before = kernel_result(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
    int result = before < 0 ? before : leave_for_private_mounts();

    launch->step = "attach mapped layers";
    for (uint32_t i = 0; result == 0 && i < overlay->lower_count; i++, layer = plan_string_after(layer))
        result = kernel_move_mount(trees[i], AT_FDCWD, layer, 0);
    if (result == 0)
        result = mount_somehow(launch, overlay, flags);
    if (result >= 0 && setns(before, CLONE_NEWNS) < 0) {
        close(result);
        result = -errno;
    }
    return result;
}

static int mount_mapped(struct launch *launch, struct overlay *overlay, uint64_t flags)
{
    static int trees[LAYERS_MAX];
    int result;

    launch->step = "map the ids of the layers";
    if (overlay->lower_count > LAYERS_MAX)
        return -E2BIG;
    for (uint32_t i = 0; i < overlay->lower_count; i++)
        trees[i] = -1;
    result = map_layers(overlay, trees);
    if (result == 0) {
        overlay->trees = trees;
        result = flags & (PH_OP_OVERLAY_JOINED | PH_OP_OVERLAY_CLASSIC)
                     ? -EINVAL
                     : mount_by_fsconfig(launch, overlay, false);
        overlay->trees = NULL;
        if (result == -EINVAL)
            result = mount_by_attached(launch, overlay, trees, flags);
    }
    for (uint32_t i = 0; i < overlay->lower_count; i++)
        fd_close(&trees[i]);
    return result;
}

static int overlay_into_slot(struct launch *launch, const struct op *op, bool is_mapped,
                             const struct field *options, uint64_t flags)
{
    struct overlay overlay = {
        .lower = op->field[1].bytes,
        .lower_count = op->field[1].length,
        .upper = op->field[2].bytes,
        .work = op->field[3].bytes,
        .options = *options,
        .is_volatile = flags & PH_OP_OVERLAY_VOLATILE,
        .is_mapped = is_mapped,
    };
    int result;

    launch->step = "layers";
    if (!layers_are_sound(&overlay))
        return -EINVAL;
    launch->step = "options";
    if (!options_are_sound(&overlay))
        return -EINVAL;
    if (overlay.lower_count == 1 && !*overlay.upper)
        result = bind_layer(&overlay);
    else if (is_mapped)
        result = mount_mapped(launch, &overlay, flags);
    else
        result = mount_somehow(launch, &overlay, flags);
    if (result < 0)
        return result;
    launch->slots[op->field[0].number] = result;
    return 0;
}

static const struct field no_options;

int op_OVERLAY(struct launch *launch, const struct op *op)
{
    return overlay_into_slot(launch, op, false, &no_options, op->field[4].number);
}

int op_OVERLAY_MAPPED(struct launch *launch, const struct op *op)
{
    return overlay_into_slot(launch, op, true, &no_options, op->field[4].number);
}

int op_OVERLAY_WITH(struct launch *launch, const struct op *op)
{
    return overlay_into_slot(launch, op, false, &op->field[4], op->field[5].number);
}
