import os,ctypes
libc=ctypes.CDLL(None,use_errno=True)
def namespace_id(p): return os.stat(p).st_ino
def enter(path,expected=None):
    fd=os.open(path,os.O_RDONLY|os.O_CLOEXEC)
    try:
        if libc.setns(fd,0x40000000): raise OSError(ctypes.get_errno(),'setns')
    finally: os.close(fd)
