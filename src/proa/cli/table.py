"""All commands: a literal table.

A row is `name: (module, attribute, summary)`. GROUPS holds Docker's two-word spellings: `proa image ls` is the row
`images`.
"""

from __future__ import annotations

from proa.cli.commands import FREQUENT

__all__ = ["COMMANDS", "GROUPS"]

COMMANDS: dict[str, tuple[str, str, str]] = {
    **FREQUENT,
    "pull": ("pull", "PULL", "Download an image from a registry"),
    "push": ("pull", "PUSH", "Upload an image to a registry"),
    "images": ("images", "IMAGES", "List images"),
    "login": ("login", "LOGIN", "Authenticate to a registry"),
    "logout": ("login", "LOGOUT", "Log out from a registry"),
    "version": ("version", "VERSION", "Show the proa version information"),
    "info": ("version", "INFO", "Display system-wide information"),
    "attach": ("attach", "ATTACH", "Attach local standard input, output, and error streams to a running container"),
    "boot": ("boot", "BOOT", "Start the engine and every container that shall run after a boot"),
    "commit": ("commit", "COMMIT", "Create a new image from a container's changes"),
    "completion": ("completion", "COMPLETION", "Print a completion script for bash, zsh or fish"),
    "cp": ("copy", "COPY", "Copy files/folders between a container and the local filesystem"),
    "create": ("run", "CREATE", "Create a new container"),
    "diff": ("diff", "DIFF", "Inspect changes to files or directories on a container's filesystem"),
    "events": ("events", "EVENTS", "Get real time events from the engine"),
    "export": ("copy", "EXPORT", "Export a container's filesystem as a tar archive"),
    "help": ("about", "HELP", "Show the usage of a command"),
    "history": ("history", "HISTORY", "Show the history of an image"),
    "import": ("archive", "IMPORT", "Import the contents from a tarball to create an image"),
    "inspect": ("inspect", "INSPECT", "Return low-level information on containers, images, networks and volumes"),
    "kill": ("lifecycle", "KILL", "Kill one or more running containers"),
    "load": ("archive", "LOAD", "Load an image from a tar archive or STDIN"),
    "logs": ("logs", "LOGS", "Fetch the logs of a container"),
    "pause": ("lifecycle", "PAUSE", "Pause all processes within one or more containers"),
    "port": ("port", "PORT", "List port mappings or a specific mapping for the container"),
    "rename": ("lifecycle", "RENAME", "Rename a container"),
    "restart": ("lifecycle", "RESTART", "Restart one or more containers"),
    "rm": ("lifecycle", "RM", "Remove one or more containers"),
    "rmi": ("images", "RMI", "Remove one or more images"),
    "search": ("registry", "SEARCH", "Search a registry for images"),
    "save": ("archive", "SAVE", "Save one or more images to a tar archive (streamed to STDOUT by default)"),
    "start": ("start", "START", "Start one or more stopped containers"),
    "stats": ("stats", "STATS", "Display a live stream of container(s) resource usage statistics"),
    "stop": ("lifecycle", "STOP", "Stop one or more running containers"),
    "tag": ("images", "TAG", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    "top": ("top", "TOP", "Display the running processes of a container"),
    "unpause": ("lifecycle", "UNPAUSE", "Unpause all processes within one or more containers"),
    "update": ("update", "UPDATE", "Update configuration of one or more containers"),
    "wait": ("lifecycle", "WAIT", "Block until one or more containers stop, then print their exit codes"),
    "context inspect": ("context", "INSPECT", "Display detailed information on one or more contexts"),
    "context ls": ("context", "LS", "List contexts"),
    "context show": ("context", "SHOW", "Print the name of the current context"),
    "context use": ("context", "USE", "Set the current context of `docker`"),
    "container execs": ("execs", "EXECS", "List the commands that exec runs in a container"),
    "container kill-exec": ("execs", "KILL_EXEC", "Send a signal to a command that exec runs"),
    "config create": ("secret", "CONFIG_CREATE", "Create a config from a file or STDIN"),
    "config inspect": ("secret", "CONFIG_INSPECT", "Display information on one or more configs"),
    "config ls": ("secret", "CONFIG_LS", "List configs"),
    "config rm": ("secret", "CONFIG_RM", "Remove one or more configs"),
    "container inspect": ("inspect", "CONTAINER", "Display detailed information on one or more containers"),
    "container prune": ("prune", "CONTAINERS", "Remove all stopped containers"),
    "image copy": ("registry", "COPY", "Copy an image from registry to registry without storing it"),
    "image tags": ("registry", "TAGS", "List the tags of a repository in its registry"),
    "image diff": ("image", "DIFF", "Show what an image changes of its lower layers, or of another image"),
    "image mount": ("image", "MOUNT", "Mount an image read-only to look into it, or list what is mounted"),
    "image unmount": ("image", "UNMOUNT", "Unmount images"),
    "image inspect": ("inspect", "IMAGE", "Display detailed information on one or more images"),
    "image prune": ("prune", "IMAGES", "Remove unused images"),
    "artifact add": ("artifact", "ADD", "Store files as an OCI artifact"),
    "artifact extract": ("artifact", "EXTRACT", "Write the files of an artifact to a directory or standard output"),
    "artifact inspect": ("artifact", "INSPECT", "Display an artifact's type, files and annotations"),
    "artifact ls": ("artifact", "LS", "List artifacts"),
    "artifact pull": ("artifact", "PULL", "Download an artifact from a registry"),
    "artifact push": ("artifact", "PUSH", "Upload an artifact to a registry"),
    "artifact rm": ("artifact", "RM", "Remove one or more artifacts"),
    "manifest add": ("manifest", "ADD", "Add images to a manifest list"),
    "manifest annotate": ("manifest", "ANNOTATE", "Say which platform an entry of a manifest list is for"),
    "manifest create": ("manifest", "CREATE", "Create a manifest list of images"),
    "manifest inspect": ("manifest", "INSPECT", "Display a manifest list, or what a registry has under a name"),
    "manifest push": ("manifest", "PUSH", "Push a manifest list and its images to a registry"),
    "manifest remove": ("manifest", "REMOVE", "Take an entry out of a manifest list"),
    "manifest rm": ("manifest", "RM", "Delete one or more manifest lists"),
    "network connect": ("network", "CONNECT", "Connect a container to a network"),
    "network create": ("network", "CREATE", "Create a network"),
    "network disconnect": ("network", "DISCONNECT", "Disconnect a container from a network"),
    "network inspect": ("inspect", "NETWORK", "Display detailed information on one or more networks"),
    "network ls": ("network", "LS", "List networks"),
    "network prune": ("prune", "NETWORKS", "Remove all unused networks"),
    "network reload": ("network", "RELOAD", "Make bridges, addresses, rules and published ports true again"),
    "network rm": ("network", "RM", "Remove one or more networks"),
    "secret create": ("secret", "SECRET_CREATE", "Create a secret from a file or STDIN"),
    "secret inspect": ("secret", "SECRET_INSPECT", "Display information on one or more secrets"),
    "secret ls": ("secret", "SECRET_LS", "List secrets"),
    "secret rm": ("secret", "SECRET_RM", "Remove one or more secrets"),
    "system check": ("check", "CHECK", "Check everything stored for damage, and repair it"),
    "system dial-stdio": ("dial_stdio", "DIAL_STDIO", "Connect standard input and output to the engine"),
    "system df": ("df", "DF", "Show disk usage"),
    "system prune": ("prune", "SYSTEM", "Remove unused data"),
    "system service": ("system", "SERVICE", "Run the engine in the foreground"),
    "system socket": ("scoped_sockets", "SOCKET", "Serve a restricted view of the engine at another socket"),
    "system status": ("system", "STATUS", "Show whether the engine runs, and where"),
    "system stop": ("system", "STOP", "Stop the engine; containers keep running"),
    "system unit": ("boot", "UNIT", "Print a systemd unit that runs the engine from the machine's boot on"),
    "volume clone": ("volume", "CLONE", "Make a copy of a volume"),
    "volume create": ("volume", "CREATE", "Create a volume"),
    "volume export": ("volume", "EXPORT", "Write what is in a volume as a tar archive"),
    "volume import": ("volume", "IMPORT", "Fill a volume from a tar archive"),
    "volume inspect": ("inspect", "VOLUME", "Display detailed information on one or more volumes"),
    "volume ls": ("volume", "LS", "List volumes"),
    "volume prune": ("prune", "VOLUMES", "Remove unused local volumes"),
    "volume rm": ("volume", "RM", "Remove one or more volumes"),
    "volume snapshot": ("volume", "SNAPSHOT", "Keep a copy of a volume under a dated name"),
}

_CONTAINER_WORDS = (
    *("attach", "commit", "cp", "create", "diff", "exec", "export", "kill", "logs", "pause", "port", "rename"),
    *("restart", "rm", "run", "start", "stats", "stop", "top", "unpause", "update", "wait"),
)

# The two-word commands: a group has a summary, and each word after it names a row.
GROUPS: dict[str, tuple[str, dict[str, str]]] = {
    "config": (
        "Manage configs",
        {word: f"config {word}" for word in ("create", "inspect", "ls", "rm")},
    ),
    "container": (
        "Manage containers",
        {
            **{word: word for word in _CONTAINER_WORDS},
            "execs": "container execs",
            "inspect": "container inspect",
            "kill-exec": "container kill-exec",
            "ls": "ps",
            "list": "ps",
            "ps": "ps",
            "prune": "container prune",
            "remove": "rm",
        },
    ),
    "context": (
        "Manage contexts",
        {**{word: f"context {word}" for word in ("inspect", "ls", "show", "use")}, "list": "context ls"},
    ),
    "image": (
        "Manage images",
        {
            **{word: word for word in ("history", "import", "load", "pull", "push", "save", "tag")},
            "copy": "image copy",
            "diff": "image diff",
            "mount": "image mount",
            "umount": "image unmount",
            "unmount": "image unmount",
            "inspect": "image inspect",
            "ls": "images",
            "list": "images",
            "prune": "image prune",
            "tags": "image tags",
            "rm": "rmi",
            "remove": "rmi",
        },
    ),
    "artifact": (
        "Manage OCI artifacts",
        {
            **{word: f"artifact {word}" for word in ("add", "extract", "inspect", "ls", "pull", "push", "rm")},
            "list": "artifact ls",
        },
    ),
    "manifest": (
        "Manage manifest lists",
        {word: f"manifest {word}" for word in ("add", "annotate", "create", "inspect", "push", "remove", "rm")},
    ),
    "network": (
        "Manage networks",
        {
            **{
                word: f"network {word}"
                for word in ("connect", "create", "disconnect", "inspect", "ls", "prune", "reload", "rm")
            },
            "list": "network ls",
            "remove": "network rm",
        },
    ),
    "secret": (
        "Manage secrets",
        {word: f"secret {word}" for word in ("create", "inspect", "ls", "rm")},
    ),
    "system": (
        "Manage the engine",
        {
            **{
                word: f"system {word}"
                for word in ("check", "df", "dial-stdio", "prune", "service", "socket", "status", "stop", "unit")
            },
            "events": "events",
            "info": "info",
        },
    ),
    "volume": (
        "Manage volumes",
        {
            **{
                word: f"volume {word}"
                for word in ("clone", "create", "export", "import", "inspect", "ls", "prune", "rm", "snapshot")
            },
            "list": "volume ls",
            "remove": "volume rm",
        },
    ),
}
