/* A disk in memory that forgets at a power cut what was not synced: a FUSE file system for tests.
 *
 *     forgetful_disk MOUNTPOINT
 *
 * It keeps each file twice: as programs see it (live) and as the platter has it (durable). fsync of a
 * file copies its changed blocks from live to durable. Creating, renaming, linking and removing are
 * changes of names; they wait in one list until they are made durable:
 *
 *     names strict    by fsync of the directory alone, as POSIX promises (the default)
 *     names journal   by any fsync, as ext4 and XFS do: one journal, in order
 *
 * One command a line on stdin, one answer a line on stdout:
 *
 *     names strict|journal   see above
 *     dark                   the cut: from now on no request is answered. Kill every program now.
 *     light lost SEED        the power is back, and nothing that was not synced is there
 *     light torn SEED        the same, but of each file a random part of the unsynced blocks arrived, with
 *                            the old length or the new, one block of them torn at a sector; and of the
 *                            changes of names the first few, in order
 *
 * Handles of the time before a cut are dead (EIO). Ends with its stdin, or when it is unmounted.
 */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, SECTOR = 512, COLLECT_EVERY = 256 };

struct entry {
    char *name;
    uint64_t node;
};

struct names {
    struct entry *list;
    size_t count, room;
};

struct bytes {
    char *data;
    size_t size, room;
};

struct node {
    mode_t mode;
    struct timespec changed;
    long opens;
    bool reached;
    struct bytes live, durable;
    unsigned char *dirty; /* one byte a block of live */
    size_t dirty_room;
    bool resized;
    struct names live_names, durable_names;
};

struct change { /* one atomic change of names: up to two entries, node 0 removes */
    int count;
    struct {
        uint64_t folder, node;
        char *name;
    } part[2];
};

static struct node **nodes; /* by number; 1 is the root; numbers are not used again */
static size_t node_count = 1, node_room; /* number 0 means none */
static struct change *pending;
static size_t pending_count, pending_room;
static bool journal, dark;
static uint64_t epoch = 1, chance = 1, removals;
static struct fuse_session *session;

static void *grown(void *old, size_t bytes) {
    void *made = realloc(old, bytes);
    if (!made) {
        perror("forgetful_disk");
        exit(1);
    }
    return made;
}

static uint64_t next_chance(void) { /* xorshift64* */
    chance ^= chance >> 12;
    chance ^= chance << 25;
    chance ^= chance >> 27;
    return chance * 2685821657736338717ULL >> 16;
}

/* ---- names ---- */

static struct entry *find(struct names *names, const char *name) {
    for (size_t i = 0; i < names->count; i++)
        if (!strcmp(names->list[i].name, name))
            return &names->list[i];
    return NULL;
}

static void set_name(struct names *names, const char *name, uint64_t node) {
    struct entry *known = find(names, name);
    if (known && node) {
        known->node = node;
    } else if (known) {
        free(known->name);
        *known = names->list[--names->count];
    } else if (node) {
        if (names->count == names->room) {
            names->room = names->room ? 2 * names->room : 8;
            names->list = grown(names->list, names->room * sizeof *names->list);
        }
        names->list[names->count++] = (struct entry){strdup(name), node};
    }
}

static void copy_names(struct names *to, const struct names *from) {
    for (size_t i = 0; i < to->count; i++)
        free(to->list[i].name);
    to->count = 0;
    for (size_t i = 0; i < from->count; i++)
        set_name(to, from->list[i].name, from->list[i].node);
}

static void change_names(int count, const uint64_t *folder, const char **name,
                         const uint64_t *node) {
    if (pending_count == pending_room) {
        pending_room = pending_room ? 2 * pending_room : 64;
        pending = grown(pending, pending_room * sizeof *pending);
    }
    struct change *made = &pending[pending_count++];
    made->count = count;
    for (int i = 0; i < count; i++) {
        set_name(&nodes[folder[i]]->live_names, name[i], node[i]);
        clock_gettime(CLOCK_REALTIME, &nodes[folder[i]]->changed);
        made->part[i].folder = folder[i];
        made->part[i].node = node[i];
        made->part[i].name = strdup(name[i]);
    }
}

static void change_name(uint64_t folder, const char *name, uint64_t node) {
    change_names(1, &folder, &name, &node);
}

static void forget_change(struct change *change) {
    for (int i = 0; i < change->count; i++)
        free(change->part[i].name);
}

static void apply(struct change *change) {
    for (int i = 0; i < change->count; i++)
        set_name(&nodes[change->part[i].folder]->durable_names, change->part[i].name,
                 change->part[i].node);
    forget_change(change);
}

/* Make changes durable: all, or those of one folder with what they depend on. */
static void sync_names(uint64_t folder) {
    if (!pending_count)
        return;
    bool *wanted = grown(NULL, pending_count + 1), *touched = calloc(node_count, sizeof *touched);
    if (!touched)
        exit(1);
    touched[folder] = true;
    for (size_t i = pending_count; i-- > 0;) {
        wanted[i] = journal;
        for (int j = 0; j < pending[i].count; j++)
            wanted[i] |= touched[pending[i].part[j].folder];
        for (int j = 0; wanted[i] && j < pending[i].count; j++)
            touched[pending[i].part[j].folder] = true;
    }
    size_t kept = 0;
    for (size_t i = 0; i < pending_count; i++) {
        if (wanted[i])
            apply(&pending[i]);
        else
            pending[kept++] = pending[i];
    }
    pending_count = kept;
    free(wanted);
    free(touched);
}

/* ---- contents ---- */

static void reserve(struct bytes *bytes, size_t size) {
    if (size <= bytes->room)
        return;
    size_t room = bytes->room ? bytes->room : BLOCK;
    while (room < size)
        room *= 2;
    bytes->data = grown(bytes->data, room);
    memset(bytes->data + bytes->room, 0, room - bytes->room);
    bytes->room = room;
}

static void mark(struct node *node, size_t start, size_t end) {
    if (end <= start)
        return;
    size_t needed = (end + BLOCK - 1) / BLOCK;
    if (needed > node->dirty_room) {
        size_t room = 2 * needed;
        node->dirty = grown(node->dirty, room);
        memset(node->dirty + node->dirty_room, 0, room - node->dirty_room);
        node->dirty_room = room;
    }
    memset(node->dirty + start / BLOCK, 1, needed - start / BLOCK);
}

static void resize(struct node *node, size_t size) {
    if (size < node->live.size) {
        memset(node->live.data + size, 0, node->live.size - size);
        mark(node, size, node->live.size);
    } else {
        reserve(&node->live, size);
        mark(node, node->live.size, size);
    }
    node->live.size = size;
    node->resized = true;
    clock_gettime(CLOCK_REALTIME, &node->changed);
}

static void copy_part(struct node *node, size_t start, size_t size) {
    reserve(&node->durable, start + size);
    reserve(&node->live, start + size);
    memcpy(node->durable.data + start, node->live.data + start, size);
}

static void set_durable_size(struct node *node, size_t size) {
    reserve(&node->durable, size);
    if (size < node->durable.size)
        memset(node->durable.data + size, 0, node->durable.size - size);
    node->durable.size = size;
}

static void sync_content(struct node *node) {
    for (size_t i = 0; i < node->dirty_room; i++)
        if (node->dirty[i])
            copy_part(node, i * BLOCK, BLOCK);
    set_durable_size(node, node->live.size);
    if (node->dirty_room)
        memset(node->dirty, 0, node->dirty_room);
    node->resized = false;
}

/* What a cut leaves of a file that was being written back: any of its blocks, either of its lengths. */
static void tear_content(struct node *node) {
    size_t torn = node->dirty_room, seen = 0;
    for (size_t i = 0; i < node->dirty_room; i++)
        if (node->dirty[i] && next_chance() % ++seen == 0)
            torn = i;
    for (size_t i = 0; i < node->dirty_room; i++) {
        if (!node->dirty[i] || next_chance() % 2)
            continue;
        size_t sectors = i == torn ? 1 + next_chance() % (BLOCK / SECTOR) : BLOCK / SECTOR;
        copy_part(node, i * BLOCK, sectors * SECTOR);
    }
    set_durable_size(node, next_chance() % 2 ? node->live.size : node->durable.size);
}

/* ---- the cut ---- */

static void reach(uint64_t number) {
    struct node *node = nodes[number];
    if (node->reached)
        return;
    node->reached = true;
    for (size_t i = 0; i < node->live_names.count; i++)
        reach(node->live_names.list[i].node);
    for (size_t i = 0; i < node->durable_names.count; i++)
        reach(node->durable_names.list[i].node);
}

/* Free the contents of files that neither names nor handles lead to. */
static void collect(void) {
    for (size_t i = 1; i < node_count; i++)
        nodes[i]->reached = false;
    reach(1);
    for (size_t i = 0; i < pending_count; i++)
        for (int j = 0; j < pending[i].count; j++) {
            reach(pending[i].part[j].folder);
            if (pending[i].part[j].node)
                reach(pending[i].part[j].node);
        }
    for (size_t i = 2; i < node_count; i++) {
        struct node *node = nodes[i];
        if (node->reached || node->opens)
            continue;
        free(node->live.data);
        free(node->durable.data);
        free(node->dirty);
        memset(&node->live, 0, sizeof node->live);
        memset(&node->durable, 0, sizeof node->durable);
        node->dirty = NULL;
        node->dirty_room = 0;
    }
}

static void forget(bool torn, size_t *blocks, size_t *changes) {
    *blocks = 0;
    *changes = pending_count;
    size_t survive = torn && pending_count ? next_chance() % (pending_count + 1) : 0;
    for (size_t i = 0; i < pending_count; i++)
        if (i < survive)
            apply(&pending[i]);
        else
            forget_change(&pending[i]);
    pending_count = 0;
    for (size_t i = 1; i < node_count; i++) {
        struct node *node = nodes[i];
        for (size_t j = 0; j < node->dirty_room; j++)
            *blocks += node->dirty[j] != 0;
        if (torn && node->resized)
            tear_content(node);
        else if (torn)
            for (size_t j = 0; j < node->dirty_room; j++)
                if (node->dirty[j] && next_chance() % 2)
                    copy_part(node, j * BLOCK, BLOCK);
        if (node->dirty_room)
            memset(node->dirty, 0, node->dirty_room);
        node->resized = false;
        reserve(&node->live, node->durable.size);
        if (node->live.room)
            memset(node->live.data, 0, node->live.room);
        if (node->durable.size)
            memcpy(node->live.data, node->durable.data, node->durable.size);
        node->live.size = node->durable.size;
        node->opens = 0;
        copy_names(&node->live_names, &node->durable_names);
    }
    epoch++;
    collect();
}

/* ---- requests ---- */

static uint64_t make_node(mode_t mode) {
    if (node_count >= node_room) {
        node_room = node_room ? 2 * node_room : 256;
        nodes = grown(nodes, node_room * sizeof *nodes);
    }
    struct node *made = calloc(1, sizeof *made);
    if (!made)
        exit(1);
    made->mode = mode;
    clock_gettime(CLOCK_REALTIME, &made->changed);
    nodes[node_count] = made;
    return node_count++;
}

static struct stat stat_of(uint64_t number) {
    struct node *node = nodes[number];
    struct stat found = {.st_ino = number,
                         .st_mode = node->mode,
                         .st_nlink = S_ISDIR(node->mode) ? 2 : 1,
                         .st_uid = getuid(),
                         .st_gid = getgid(),
                         .st_size = (off_t)node->live.size,
                         .st_blksize = BLOCK,
                         .st_blocks = (blkcnt_t)(node->live.size + 511) / 512,
                         .st_atim = node->changed,
                         .st_mtim = node->changed,
                         .st_ctim = node->changed};
    return found;
}

static struct fuse_entry_param entry_of(uint64_t number) {
    struct fuse_entry_param made = {.ino = number, .generation = epoch, .attr = stat_of(number)};
    return made;
}

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *name) {
    struct entry *known = find(&nodes[parent]->live_names, name);
    if (!known) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    struct fuse_entry_param made = entry_of(known->node);
    fuse_reply_entry(request, &made);
}

static void on_getattr(fuse_req_t request, fuse_ino_t number, struct fuse_file_info *file) {
    (void)file;
    struct stat found = stat_of(number);
    fuse_reply_attr(request, &found, 0);
}

static void on_setattr(fuse_req_t request, fuse_ino_t number, struct stat *wanted, int what,
                       struct fuse_file_info *file) {
    struct node *node = nodes[number];
    if (file && file->fh != epoch) {
        fuse_reply_err(request, EIO);
        return;
    }
    if (what & FUSE_SET_ATTR_MODE)
        node->mode = (node->mode & S_IFMT) | (wanted->st_mode & 07777);
    if (what & FUSE_SET_ATTR_SIZE)
        resize(node, (size_t)wanted->st_size);
    if (what & FUSE_SET_ATTR_MTIME)
        node->changed = wanted->st_mtim;
    on_getattr(request, number, NULL);
}

static void on_mkdir(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode) {
    if (find(&nodes[parent]->live_names, name)) {
        fuse_reply_err(request, EEXIST);
        return;
    }
    uint64_t number = make_node(S_IFDIR | (mode & 07777));
    change_name(parent, name, number);
    struct fuse_entry_param made = entry_of(number);
    fuse_reply_entry(request, &made);
}

static void on_create(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *file) {
    struct entry *known = find(&nodes[parent]->live_names, name);
    uint64_t number = known ? known->node : make_node(S_IFREG | (mode & 07777));
    if (!known)
        change_name(parent, name, number);
    else if (file->flags & O_TRUNC)
        resize(nodes[number], 0);
    file->fh = epoch;
    nodes[number]->opens++;
    struct fuse_entry_param made = entry_of(number);
    fuse_reply_create(request, &made, file);
}

static void on_open(fuse_req_t request, fuse_ino_t number, struct fuse_file_info *file) {
    if (file->flags & O_TRUNC)
        resize(nodes[number], 0);
    file->fh = epoch;
    nodes[number]->opens++;
    fuse_reply_open(request, file);
}

static void on_release(fuse_req_t request, fuse_ino_t number, struct fuse_file_info *file) {
    if (file->fh == epoch)
        nodes[number]->opens--;
    fuse_reply_err(request, 0);
}

static void on_remove(fuse_req_t request, fuse_ino_t parent, const char *name) {
    struct entry *known = find(&nodes[parent]->live_names, name);
    int refused = !known ? ENOENT : nodes[known->node]->live_names.count ? ENOTEMPTY : 0;
    if (!refused)
        change_name(parent, name, 0);
    if (++removals % COLLECT_EVERY == 0)
        collect();
    fuse_reply_err(request, refused);
}

static void on_rename(fuse_req_t request, fuse_ino_t parent, const char *name, fuse_ino_t to,
                      const char *new_name, unsigned int flags) {
    struct entry *known = find(&nodes[parent]->live_names, name);
    bool there = find(&nodes[to]->live_names, new_name) != NULL;
    if (!known || flags & ~1u || (flags & 1u && there)) {
        fuse_reply_err(request, !known ? ENOENT : flags & ~1u ? EINVAL : EEXIST);
        return;
    }
    if (parent != to || strcmp(name, new_name))
        change_names(2, (uint64_t[2]){to, parent}, (const char *[2]){new_name, name},
                     (uint64_t[2]){known->node, 0});
    fuse_reply_err(request, 0);
}

static void on_link(fuse_req_t request, fuse_ino_t number, fuse_ino_t parent, const char *name) {
    if (find(&nodes[parent]->live_names, name)) {
        fuse_reply_err(request, EEXIST);
        return;
    }
    change_name(parent, name, number);
    struct fuse_entry_param made = entry_of(number);
    fuse_reply_entry(request, &made);
}

static void on_read(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset,
                    struct fuse_file_info *file) {
    struct bytes *live = &nodes[number]->live;
    size_t start = (size_t)offset, left = start < live->size ? live->size - start : 0;
    if (file->fh != epoch)
        fuse_reply_err(request, EIO);
    else
        fuse_reply_buf(request, left ? live->data + start : NULL, left < size ? left : size);
}

static void on_write(fuse_req_t request, fuse_ino_t number, const char *data, size_t size,
                     off_t offset, struct fuse_file_info *file) {
    struct node *node = nodes[number];
    size_t start = (size_t)offset;
    if (file->fh != epoch) {
        fuse_reply_err(request, EIO);
        return;
    }
    if (start + size > node->live.size)
        resize(node, start + size);
    memcpy(node->live.data + start, data, size);
    mark(node, start, start + size);
    clock_gettime(CLOCK_REALTIME, &node->changed);
    fuse_reply_write(request, size);
}

static void on_fsync(fuse_req_t request, fuse_ino_t number, int only_data,
                     struct fuse_file_info *file) {
    (void)only_data; /* fdatasync too writes the length */
    if (file->fh == epoch) {
        sync_content(nodes[number]);
        if (journal)
            sync_names(number);
    }
    fuse_reply_err(request, file->fh == epoch ? 0 : EIO);
}

static void on_fsyncdir(fuse_req_t request, fuse_ino_t number, int only_data,
                        struct fuse_file_info *file) {
    (void)only_data;
    if (file->fh == epoch)
        sync_names(number);
    fuse_reply_err(request, file->fh == epoch ? 0 : EIO);
}

static void on_opendir(fuse_req_t request, fuse_ino_t number, struct fuse_file_info *file) {
    (void)number;
    file->fh = epoch;
    fuse_reply_open(request, file);
}

/* The place in a folder is the node's number, so that removing while listing skips nothing. */
static void on_readdir(fuse_req_t request, fuse_ino_t number, size_t size, off_t after,
                       struct fuse_file_info *file) {
    (void)file;
    struct names *names = &nodes[number]->live_names;
    char *answer = grown(NULL, size);
    size_t used = 0;
    for (;;) {
        struct entry *next = NULL;
        for (size_t i = 0; i < names->count; i++)
            if ((off_t)names->list[i].node > after && (!next || names->list[i].node < next->node))
                next = &names->list[i];
        if (!next)
            break;
        after = (off_t)next->node;
        /* Hard links of one file in one folder share the place. */
        size_t before = used;
        for (size_t i = 0; i < names->count; i++) {
            if ((off_t)names->list[i].node != after)
                continue;
            struct stat found = stat_of(names->list[i].node);
            size_t needed = fuse_add_direntry(request, answer + used, size - used,
                                              names->list[i].name, &found, after);
            if (needed > size - used) {
                fuse_reply_buf(request, answer, before);
                free(answer);
                return;
            }
            used += needed;
        }
    }
    fuse_reply_buf(request, answer, used);
    free(answer);
}

static void on_statfs(fuse_req_t request, fuse_ino_t number) {
    (void)number;
    struct statvfs found = {.f_bsize = BLOCK, .f_frsize = BLOCK, .f_namemax = 255};
    found.f_blocks = found.f_bfree = found.f_bavail = 1 << 24;
    found.f_files = found.f_ffree = found.f_favail = 1 << 20;
    fuse_reply_statfs(request, &found);
}

static const struct fuse_lowlevel_ops ops = {
    .lookup = on_lookup,     .getattr = on_getattr, .setattr = on_setattr, .mkdir = on_mkdir,
    .create = on_create,     .open = on_open,       .release = on_release, .unlink = on_remove,
    .rmdir = on_remove,      .rename = on_rename,   .link = on_link,       .read = on_read,
    .write = on_write,       .fsync = on_fsync,     .opendir = on_opendir, .readdir = on_readdir,
    .fsyncdir = on_fsyncdir, .statfs = on_statfs,
};

/* ---- commands ---- */

static bool obey(const char *line) {
    char how[16];
    unsigned long long seed;
    if (!strcmp(line, "names strict\n") || !strcmp(line, "names journal\n")) {
        journal = line[6] == 'j';
        printf("names\n");
    } else if (!strcmp(line, "dark\n")) {
        dark = true;
        printf("dark\n");
    } else if (sscanf(line, "light %15s %llu", how, &seed) == 2) {
        size_t blocks, changes;
        chance = seed * 0x9E3779B97F4A7C15ULL | 1;
        forget(!strcmp(how, "torn"), &blocks, &changes);
        dark = false;
        printf("light %zu %zu\n", blocks, changes);
    } else {
        return false;
    }
    fflush(stdout);
    return true;
}

static void serve(void) {
    struct fuse_buf request = {.mem = NULL};
    char line[256];
    while (!fuse_session_exited(session)) {
        struct pollfd from[2] = {{0, POLLIN, 0}, {fuse_session_fd(session), POLLIN, 0}};
        if (poll(from, dark ? 1 : 2, -1) < 0 && errno != EINTR)
            break;
        /* Read without a buffer: what a buffer held, poll would not tell of. */
        if (from[0].revents) {
            ssize_t got = read(0, line, sizeof line - 1);
            line[got > 0 ? got : 0] = 0;
            if (got <= 0 || !obey(line))
                break;
        } else if (!dark && from[1].revents) {
            int got = fuse_session_receive_buf(session, &request);
            if (got > 0)
                fuse_session_process_buf(session, &request);
            else if (got != -EINTR && got != -EAGAIN)
                break;
        }
    }
    free(request.mem);
}

int main(int count, char **words) {
    char *options[] = {words[0], "-o", "fsname=forgetful,default_permissions"};
    struct fuse_args arguments = FUSE_ARGS_INIT(3, options);
    if (count != 2) {
        fprintf(stderr, "usage: %s MOUNTPOINT\n", words[0]);
        return 2;
    }
    make_node(S_IFDIR | 0755);
    session = fuse_session_new(&arguments, &ops, sizeof ops, NULL);
    if (!session || fuse_session_mount(session, words[1]))
        return 1;
    fuse_set_signal_handlers(session);
    printf("mounted\n");
    fflush(stdout);
    serve();
    fuse_session_unmount(session);
    fuse_session_destroy(session);
    return 0;
}
