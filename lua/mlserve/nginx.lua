--- mlserve inside nginx and OpenResty; see mlserve.serve.transports.nginx.
return require "mlserve.serve.transports.nginx"
