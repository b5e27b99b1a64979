import subprocess,time
from dataclasses import dataclass
@dataclass
class Completed:
    returncode:int; stdout:bytes; stderr:bytes; status:str; seconds:float
def run(argv,*,deadline_seconds,limit_bytes,stdin=b"",env=None):
    t=time.monotonic()
    try:
        p=subprocess.run(argv,capture_output=True,timeout=deadline_seconds,env={"PATH":"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","LC_ALL":"C"})
        return Completed(p.returncode,p.stdout,p.stderr,"ok",time.monotonic()-t)
    except FileNotFoundError: return Completed(127,b"",b"","absent",0)
    except subprocess.TimeoutExpired as e: return Completed(-9,b"",b"","timeout",time.monotonic()-t)
